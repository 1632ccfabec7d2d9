"""Answers held against the OpenAPI document."""

import httpx
import jsonschema
import orjson


def check(document, path: str, method: str, answer: httpx.Response) -> None:
    """The answer is one of those that the document has for the operation; its body and headers are as described."""
    responses = document["paths"][path][method.lower()]["responses"]
    described = responses.get(str(answer.status_code))
    assert described is not None, (method, str(answer.url), answer.status_code, answer.text[:300])
    for name in described.get("headers", {}):
        absent_row = answer.status_code == 304 and name == "LS-Version"
        assert absent_row or name in answer.headers, (str(answer.url), name)
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    if method == "HEAD" or not described.get("content"):
        assert answer.content == b""
        return
    assert media_type in described["content"], (str(answer.url), media_type)
    schema = described["content"][media_type].get("schema")
    if schema and media_type.endswith("json"):
        whole = {**schema, "components": document["components"]}
        jsonschema.validate(orjson.loads(answer.content), whole, cls=jsonschema.Draft202012Validator)
