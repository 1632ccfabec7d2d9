"""Transport: Faust's own connections to Kafka (aiokafka), tried before Faust begins, which would try them for ever.

librdkafka may be let in where aiokafka is not: their trust in authorities, their tokens and their TLS are their own.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from logstore.log.connect.cluster import Cluster
from logstore.model.errors import AuthenticationFailed, LogUnreachable
from streaming.credentials import credentials

CONNECT_S = 5.0
_TLS_STEP = "look at ssl.ca.location, and at when the certificates of both sides end"
_REFUSED = (
    ssl.SSLError, AuthenticationFailedError, IllegalSaslStateError, SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)  # fmt: skip
_PROOF_STEP = "look at the user's name, password and mechanism"


def check_transport(bootstrap: str) -> None:
    """Return when one of the brokers lets Faust's transport in. Requires: no event loop runs in this thread.

    Raises AuthenticationFailed, LogUnreachable; UsageError, OSError: certificates that cannot be read.
    """
    cluster = Cluster.of(bootstrap)
    if cluster.properties:
        proof = credentials_to_aiokafka_auth(credentials(cluster), None)
        asyncio.run(_connect(cluster, proof))


async def _connect(cluster: Cluster, proof: Mapping[str, Any]) -> None:
    """Connect to the first address that answers. Raises as `check_transport`."""
    missed = "it has no address"
    for address in cluster.split(","):
        try:
            await _try(address, proof)
        except _REFUSED as error:
            raise _refused(cluster, error) from error
        except (OSError, TimeoutError, KafkaError) as error:
            missed = f"{type(error).__name__}: {error}"
        else:
            return
    raise LogUnreachable(f"Kafka at {cluster} does not answer Faust's transport: {missed}")


async def _try(address: str, proof: Mapping[str, Any]) -> None:
    """Connect, prove, and hang up. Raises what aiokafka does."""
    host, _, port = address.rpartition(":")
    tried = AIOKafkaConnection(host.strip("[]"), int(port), request_timeout_ms=int(CONNECT_S * 1_000), **proof)
    try:
        await tried.connect()
    except (KafkaError, AuthenticationFailed):  # behind the handshake: there is a connection to close
        await _hang_up(tried)
        raise
    await _hang_up(tried)


async def _hang_up(tried: AIOKafkaConnection) -> None:
    await asyncio.wait([tried.close()], timeout=CONNECT_S)


def _refused(cluster: Cluster, error: Exception) -> AuthenticationFailed:
    step = _TLS_STEP if isinstance(error, ssl.SSLError) else _PROOF_STEP
    return AuthenticationFailed(f"Kafka at {cluster} refuses {cluster.identity} of Faust's transport: {error}; {step}")
