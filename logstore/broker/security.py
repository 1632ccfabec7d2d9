"""Broker security: certificates, users and settings of an embedded broker that lets nobody in without proof.

<data>/secure/ca.pem                   certificate of an authority of its own, which signed those below; its key is gone
             /broker.pem               the broker's key and certificate
             /admin.pem                key and certificate of the client `admin`
             /client.properties        settings of the client `admin`, by librdkafka's names: --kafka-config
             /certificate.properties   the same client on the listener that asks for certificates
             /format.args              the users that Kafka's storage is formatted with

`admin` may do everything; everybody else may do what ACLs allow. The broker authenticates itself to itself by its
certificate, so that no listener takes anybody at his word.
"""

import secrets
import shutil
from pathlib import Path

from logstore.broker.data_dir import LOOPBACK, BrokerIdentity
from logstore.model.errors import SetupError
from logstore.process.private_files import private_dir

ADMIN = "admin"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_MODULES = "org.apache.kafka.common.security"


class BrokerSecurity:
    """Security of the broker on `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir / "secure"
        self.client_settings = self._dir / "client.properties"
        self.certificate_settings = self._dir / "certificate.properties"
        self.format_arguments = self._dir / "format.args"

    def prepare(self, identity: BrokerIdentity) -> None:
        """Make certificates and the admin's password where there are none; write what depends on the ports.

        Raises SetupError without the library that makes certificates.
        """
        if not self._dir.exists():
            self._make()
        self._write(self.client_settings, self._by_password())
        self._write(self.certificate_settings, self._by_certificate(identity))

    def broker_settings(self) -> str:
        """The part of server.properties that authenticates and authorizes; its paths are relative to the data."""
        plain = f'{_MODULES}.plain.PlainLoginModule required user_{ADMIN}="{self._password()}";'
        scram = f"{_MODULES}.scram.ScramLoginModule required;"
        mechanisms = {"PLAIN": plain, **dict.fromkeys(SCRAM, scram)}
        modules = [f"listener.name.clients.{m.lower()}.sasl.jaas.config={module}" for m, module in mechanisms.items()]
        return "\n".join([f"listener.name.clients.sasl.enabled.mechanisms={','.join(mechanisms)}", *modules, ""])

    def _make(self) -> None:
        """Make the folder, whole or not at all."""
        part = self._dir.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        private_dir(part)
        _issue(part)
        password = secrets.token_urlsafe(24)
        self._write(part / "admin.password", password)
        users = "".join(f"--add-scram\n{m}=[name={ADMIN},password={password}]\n" for m in SCRAM)
        self._write(part / self.format_arguments.name, users)
        part.rename(self._dir)

    def _password(self) -> str:
        return (self._dir / "admin.password").read_text()

    def _by_password(self) -> str:
        return (
            f"security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username={ADMIN}\n"
            f"sasl.password={self._password()}\nssl.ca.location={self._dir / 'ca.pem'}\n"
        )

    def _by_certificate(self, identity: BrokerIdentity) -> str:
        own = self._dir / "admin.pem"
        return (
            f"bootstrap.servers={LOOPBACK}:{identity.certificates_port}\nsecurity.protocol=SSL\n"
            f"ssl.ca.location={self._dir / 'ca.pem'}\nssl.certificate.location={own}\nssl.key.location={own}\n"
        )

    def _write(self, path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)


def _issue(folder: Path) -> None:
    try:
        import trustme  # noqa: PLC0415 - only a broker with certificates needs it
    except ImportError as error:
        raise SetupError("a secured broker needs certificates: pip install 'logstore-kv[node]'") from error
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("broker", ADMIN):
        issued = authority.issue_cert(LOOPBACK, "localhost", common_name=name)
        path = folder / f"{name}.pem"
        path.touch(mode=0o600)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        path.write_bytes(_pkcs8(issued.private_key_pem.bytes()) + chain)


def _pkcs8(key: bytes) -> bytes:
    """A private key in the one PEM format that Java reads (KIP-651)."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - comes with trustme

    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
