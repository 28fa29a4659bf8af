"""Who may talk to the admin application. An ASGI wrapper around all of it; every refusal is here.

Three things are checked, in this order:

- Host, against DNS rebinding: a web page that makes its own name point to this listener is stopped
  because a browser still sends that name. Addresses and `localhost` pass. With a token there is no
  such check: names are then given by service discovery, and no page knows the token.
- Where a state-changing call comes from: a browser says so in Sec-Fetch-Site and Origin.
- The bearer token, if one is configured, for everything but health and metrics: probes, and
  scrapers that find their targets by annotation, have no place for a secret, and what they read
  names routes and upstreams but holds nothing of any request.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.problems import problem

OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURITY_HEADERS: Final = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
)


class Gatekeeper:
    """Refuses what may not come in, and puts the security fields on every answer."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        # Digests have one length, so that comparing them tells nothing about the token's.
        self._token = hashlib.sha256(token.encode()).digest() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Nothing here speaks WebSocket; the server refuses what the application leaves alone.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY_HEADERS:
                    headers.setdefault(name, value)
            await send(message)

        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._token is None and not _is_known_host(headers.get("host", "")):
            return problem(
                421, "unknown_host", "This name is not served here",
                "The admin listener answers to its address and to localhost.",
            )  # fmt: skip
        if scope["method"] not in _SAFE_METHODS and _is_cross_site(headers):
            return problem(
                403, "cross_site", "Calls from other sites are refused",
                "A browser sent this call for a page of another origin.",
            )  # fmt: skip
        if self._token is None or scope["path"] in OPEN_PATHS:
            return None
        return self._check_token(headers)

    def _check_token(self, headers: Headers) -> Response | None:
        given = headers.getlist("authorization")
        if not given:
            return _unauthorized("A bearer token is needed", "")
        scheme, _, token = given[0].partition(" ")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        matches = hmac.compare_digest(digest, self._token or b"")
        if len(given) != 1 or scheme.lower() != "bearer" or not matches:
            return _unauthorized("The token is not accepted", ', error="invalid_token"')
        return None


def _unauthorized(title: str, error: str) -> Response:
    challenge = f'Bearer realm="lockgate-admin"{error}'
    return problem(401, "unauthorized", title, headers={"WWW-Authenticate": challenge})


def _is_cross_site(headers: Headers) -> bool:
    """Whether a browser says that a page of another origin is behind a call.

    Tools that are no browsers send neither field.
    """
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def _name_of(host: str) -> str:
    """The host of a Host field, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_known_host(host: str) -> bool:
    """Whether Host is an address, `localhost`, or missing, which no browser's ever is."""
    name = _name_of(host)
    if name in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
