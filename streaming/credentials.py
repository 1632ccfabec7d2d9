"""Credentials: properties of a cluster as Faust's transport (aiokafka) wants them, which reads none of librdkafka's."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from aiokafka.abc import AbstractTokenProvider
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from logstore.log.connect.cluster import Cluster
from logstore.model.errors import AuthenticationFailed, UsageError

TOKEN_S = 10.0
_FALSE = ("false", "0", "no")


def credentials(bootstrap: str) -> Any:
    """Credentials for the cluster; None where nobody asks for any. Raises OSError, UsageError (certificates)."""
    found = Cluster.of(bootstrap).properties
    protocol = found.get("security.protocol", "PLAINTEXT")
    if protocol == "PLAINTEXT":
        return None
    context = tls(found) if protocol.endswith("SSL") else None
    if protocol == "SSL":
        return SSLCredentials(context)
    if found["sasl.mechanism"] == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=ClientCredentials(found), ssl_context=context)
    return SASLCredentials(
        mechanism=found["sasl.mechanism"],
        username=found["sasl.username"],
        password=found["sasl.password"],
        ssl_context=context,
    )


def tls(properties: Mapping[str, Any]) -> ssl.SSLContext:
    """TLS as the properties describe it: whom to trust, and the client's own certificate.

    Raises UsageError, OSError.
    """
    context = ssl.create_default_context()
    place = properties.get("ssl.ca.location", "probe")
    if place != "probe":
        context = ssl.create_default_context(**{"capath" if Path(place).is_dir() else "cafile": place})
    if properties.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    if str(properties.get("enable.ssl.certificate.verification", True)).lower() in _FALSE:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if own := properties.get("ssl.certificate.location"):
        _load(context, own, properties["ssl.key.location"], properties.get("ssl.key.password", ""))
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str, password: str) -> None:
    """Load the client's own certificate. A password is always given: without one OpenSSL asks at the terminal."""
    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        raise UsageError(
            f"Kafka's ssl.key.location {key} and ssl.certificate.location {certificate} cannot be used together "
            f"({error.reason or 'no reason is given'}); look at ssl.key.password too"
        ) from error


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # untyped library
    """Tokens of an OpenID provider for a client id and its secret (RFC 6749, 4.4), as librdkafka's `oidc` gets them."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        part = "sasl.oauthbearer."
        self._url = properties[f"{part}token.endpoint.url"]
        self._client = (properties[f"{part}client.id"], properties[f"{part}client.secret"])
        self._form = {"grant_type": "client_credentials"}
        if scope := properties.get(f"{part}scope"):
            self._form["scope"] = scope
        authority = properties.get("https.ca.location", "probe")
        self._authority: Any = True if authority == "probe" else ssl.create_default_context(cafile=authority)

    async def token(self) -> str:
        """A token, asked for anew: aiokafka wants one for each connection. Raises AuthenticationFailed."""
        try:
            async with httpx.AsyncClient(verify=self._authority, timeout=TOKEN_S, trust_env=False) as http:
                answer = await http.post(self._url, data=self._form, auth=self._client)
            return str(answer.raise_for_status().json()["access_token"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise AuthenticationFailed(
                f"{self._url} gives no token to the client {self._client[0]}: {type(error).__name__}"
            ) from error
