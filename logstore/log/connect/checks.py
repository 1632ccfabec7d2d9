"""Checks of librdkafka properties: what contradicts itself or would silently be of no effect is refused at once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from logstore.model.errors import UsageError

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
BY_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = (*BY_PASSWORD, "OAUTHBEARER")
_FILES = ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location")
_OIDC = ("sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.token.endpoint.url")
_ALIASES = {"sasl.mechanisms": "sasl.mechanism", "metadata.broker.list": "bootstrap.servers"}
_UPPER = ("security.protocol", "sasl.mechanism")
# librdkafka knows them, Faust's transport does not: a store would be half connected.
_ONE_CLIENT_ONLY = {
    "ssl.keystore.location": "give ssl.certificate.location and ssl.key.location, in PEM",
    "ssl.certificate.pem": "give ssl.certificate.location, a file",
    "ssl.key.pem": "give ssl.key.location, a file",
    "ssl.ca.pem": "give ssl.ca.location, a file",
    "ssl.engine.location": "give ssl.certificate.location and ssl.key.location, in PEM",
    "sasl.kerberos.principal": f"sasl.mechanism is one of {', '.join(MECHANISMS)}",
}


def normal(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties by their first names. Raises UsageError for two names of one, and for values of another kind."""
    found: dict[str, Any] = {}
    for given, value in properties.items():
        name = _ALIASES.get(given, given)
        if name in found:
            raise UsageError(f"Kafka's property {name} is given twice, as {given} too; leave one out")
        if not isinstance(value, (str, int, float)) and not callable(value):
            raise UsageError(f"Kafka's property {name} is a text, a number or a truth, not {type(value).__name__}")
        found[name] = value.upper() if name in _UPPER and isinstance(value, str) else value
    return found


def check(properties: Mapping[str, Any]) -> None:
    """Raise UsageError, which names properties and never their secrets."""
    for problem in _problems(properties):
        raise UsageError(problem)


def _problems(found: Mapping[str, Any]) -> Iterator[str]:
    protocol = found.get("security.protocol", "PLAINTEXT")
    if protocol not in PROTOCOLS:
        yield f"Kafka's security.protocol is one of {', '.join(PROTOCOLS)}"
    for name, instead in _ONE_CLIENT_ONLY.items():
        if name in found:
            yield f"Kafka's property {name} is not for a store; {instead}"
    yield from _of_no_effect(found, protocol)
    if protocol.startswith("SASL_"):
        yield from _of_sasl(found)
    yield from _of_files(found)


def _of_no_effect(found: Mapping[str, Any], protocol: str) -> Iterator[str]:
    for part, prefixes in (("SASL", ("sasl.",)), ("SSL", ("ssl.", "enable.ssl."))):
        given = next((name for name in sorted(found) if name.startswith(prefixes)), None)
        if given and part not in protocol:
            yield f"Kafka's {given} is of no effect with security.protocol={protocol}; is it to be SASL_SSL?"


def _of_sasl(found: Mapping[str, Any]) -> Iterator[str]:
    mechanism = found.get("sasl.mechanism")
    if mechanism not in MECHANISMS:
        yield f"Kafka's sasl.mechanism is one of {', '.join(MECHANISMS)}"
    if mechanism in BY_PASSWORD:
        yield from (
            f"{mechanism} wants Kafka's {name}" for name in ("sasl.username", "sasl.password") if not found.get(name)
        )
    elif found.get("sasl.oauthbearer.method", "").lower() != "oidc":
        yield "OAUTHBEARER wants Kafka's sasl.oauthbearer.method=oidc"
    else:
        yield from (f"OAUTHBEARER wants Kafka's {name}" for name in _OIDC if not found.get(name))


def _of_files(found: Mapping[str, Any]) -> Iterator[str]:
    for name in _FILES:
        place = found.get(name)
        if place is not None and place != "probe" and not Path(place).exists():
            yield f"Kafka's {name} names {place}, and there is no such file"
    if ("ssl.certificate.location" in found) != ("ssl.key.location" in found):
        yield "ssl.certificate.location and ssl.key.location of Kafka's properties go together"
