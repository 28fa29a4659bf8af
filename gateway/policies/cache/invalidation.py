"""What a successful unsafe request makes outdated (RFC 9111 section 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit

from gateway.policies.cache.directives import RawHeaders
from gateway.policies.cache.key import Uri
from gateway.routing.path import PathError, normalise

_PORTS: Final = {"http": ":80", "https": ":443"}
_REFERENCES: Final = frozenset({b"location", b"content-location"})


def changed_uris(uri: Uri, headers: RawHeaders) -> Iterator[Uri]:
    """The URI that was asked for, and those that the answer's Location and Content-Location name.

    Only ones of the same scheme, host and port: nobody may make others' answers go.
    """
    yield uri
    for name, value in headers:
        if name in _REFERENCES:
            found = _resolve(uri, value.decode("latin-1"))
            if found is not None and found != uri:
                yield found


def _resolve(uri: Uri, reference: str) -> Uri | None:
    host, scheme, path, query = uri
    base = f"{scheme}://{host.decode('latin-1')}{path}?{query.decode('latin-1')}"
    try:
        parts = urlsplit(urljoin(base, reference))
        if parts.scheme != scheme or _authority(parts.netloc, scheme) != _authority(
            host.decode("latin-1"), scheme
        ):
            return None
        normal = normalise((parts.path or "/").encode("latin-1"))
    except (ValueError, PathError):
        return None
    return host, scheme, normal, parts.query.encode("latin-1")


def _authority(authority: str, scheme: str) -> str:
    return authority.lower().removesuffix(_PORTS.get(scheme, ":")).removesuffix(":")
