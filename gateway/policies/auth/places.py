"""Where an issuer publishes its keys: at a URL, in a file, or where its metadata says.

Metadata is that of OpenID Connect Discovery 1.0, or of RFC 8414 if there is none of the first. It
must name the issuer that was asked for: else one issuer could hand out keys in another's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from gateway.policies.auth.keys import BadKeys, KeySet, parse_keys
from gateway.policies.auth.strict_json import NotStrict, parse_object

if TYPE_CHECKING:
    from gateway.control.client import ControlClient, Reply, Trust

MAX_FILE_BYTES: Final = 1024 * 1024
Headers = Mapping[str, str]


class NoKeys(Exception):
    """No usable keys came. `reason` says why, without secrets."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Place(Protocol):
    """Where keys are read from."""

    async def read(self) -> tuple[KeySet, Headers]:
        """The keys as they are now, and the answer's header fields. Raises NoKeys."""
        ...


class AtUrl:
    """A JWKS document at a URL."""

    def __init__(self, url: str, http: ControlClient, trust: Trust, timeout: float) -> None:
        self.url = url
        self._http = http
        self._trust = trust
        self._timeout = timeout

    async def read(self) -> tuple[KeySet, Headers]:
        reply = await fetch(self.url, self._http, self._trust, self._timeout)
        if reply.status != 200:
            raise NoKeys(f"{self.url} answered {reply.status}")
        return _keys(reply.body, self.url), reply.headers


class Discovered:
    """A JWKS document where the issuer's metadata says that it is."""

    def __init__(self, issuer: str, http: ControlClient, trust: Trust, timeout: float) -> None:
        self._issuer = issuer
        self._http = http
        self._trust = trust
        self._timeout = timeout
        self._found: AtUrl | None = None

    async def read(self) -> tuple[KeySet, Headers]:
        if self._found is None:
            url = await self._discover()
            self._found = AtUrl(url, self._http, self._trust, self._timeout)
        try:
            return await self._found.read()
        except NoKeys:
            # Perhaps they moved: ask again next time.
            self._found = None
            raise

    async def _discover(self) -> str:
        reply: Reply | None = None
        for url in metadata_urls(self._issuer):
            reply = await fetch(url, self._http, self._trust, self._timeout)
            if reply.status != 404:
                break
        assert reply is not None
        if reply.status != 200:
            raise NoKeys(f"{url} answered {reply.status}")
        try:
            metadata = parse_object(reply.body)
        except NotStrict as error:
            raise NoKeys(f"the metadata at {url} {error.reason}") from None
        if metadata.get("issuer") != self._issuer:
            raise NoKeys(f"the metadata at {url} is that of another issuer")
        keys = metadata.get("jwks_uri")
        schemes = ("https://",) if self._issuer.startswith("https:") else ("https://", "http://")
        if not isinstance(keys, str) or not keys.startswith(schemes):
            raise NoKeys(f"the metadata at {url} has no usable jwks_uri")
        return keys


class InFile:
    """A JWKS document in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: object = None
        self._keys: KeySet | None = None

    async def read(self) -> tuple[KeySet, Headers]:
        return await asyncio.to_thread(self.read_now), {}

    def read_now(self) -> KeySet:
        """The keys, read anew if the file changed. Blocks for a small file. Raises NoKeys."""
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._keys is None or version != self._version:
                with self._path.open("rb") as file:
                    data = file.read(MAX_FILE_BYTES)
                self._keys, self._version = _keys(data, str(self._path)), version
        except OSError as error:
            raise NoKeys(f"can't read {self._path}: {(error.strerror or 'no').lower()}") from None
        return self._keys


async def fetch(url: str, http: ControlClient, trust: Trust, timeout: float) -> Reply:
    """GET a document. Raises NoKeys."""
    from gateway.control.client import ControlError  # noqa: PLC0415 - see BuildContext.http

    try:
        return await http.get(url, trust=trust, timeout=timeout)
    except ControlError as error:
        raise NoKeys(f"{url}: {error.reason}") from None


def _keys(data: bytes, where: str) -> KeySet:
    try:
        return parse_keys(data)
    except BadKeys as error:
        raise NoKeys(f"{where}: {error.reason}") from None


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Where an issuer's metadata may be: OpenID Connect Discovery 4, RFC 8414 section 3.1."""
    base = issuer.rstrip("/")
    parts = urlsplit(base)
    origin = f"{parts.scheme}://{parts.netloc}"
    return (
        f"{base}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{parts.path}",
    )
