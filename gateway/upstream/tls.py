"""TLS towards the upstreams: contexts from files. Handshakes happen in the connector."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

from gateway.config.model import UpstreamTls
from gateway.errors import ConfigError


class ClientTls:
    """The TLS settings of one upstream, and the context that new connections use.

    The files are read when it is made and again by `reload`; connections that are open keep the
    context they were opened with. `path` is the configuration key, for errors.
    """

    def __init__(self, config: UpstreamTls | None, path: str) -> None:
        self._config = config
        self._path = path
        self._digest = self._read_digest()
        self.context = self._make()

    def reload(self) -> bool:
        """Read the files again if they changed; True if they did.

        Raises ConfigError and keeps the old context if they can't be used.
        """
        digest = self._read_digest()
        if digest == self._digest:
            return False
        self.context = self._make()
        self._digest = digest
        return True

    def _files(self) -> dict[str, Path]:
        config = self._config
        if config is None:
            return {}
        files = {"ca": config.ca, "cert": config.cert, "key": config.key}
        return {key: Path(path) for key, path in files.items() if path is not None}

    def _read_digest(self) -> bytes:
        digest = hashlib.sha256()
        for key, file in self._files().items():
            try:
                digest.update(hashlib.sha256(file.read_bytes()).digest())
            except OSError as error:
                reason = error.strerror or str(error)
                message = f"{file} can't be read: {reason}"
                raise ConfigError(message, f"{self._path}.{key}") from error
        return digest.digest()

    def _make(self) -> ssl.SSLContext:
        files = self._files()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        key = "ca"
        try:
            if "ca" in files:
                context.load_verify_locations(files["ca"])
            else:
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            key = "cert"
            if "cert" in files:
                # The empty password keeps OpenSSL from asking for one at the terminal.
                context.load_cert_chain(files["cert"], files.get("key"), password=b"")
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or getattr(error, "reason", None) or str(error)
            message = f"{files.get(key, 'the system store')} can't be used: {reason}"
            raise ConfigError(message, f"{self._path}.{key}") from error
        return context
