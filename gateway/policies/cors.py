"""cors: which web pages of other origins may read a route's answers (the Fetch standard's CORS).

CORS protects browsers' users, not the route: whoever is no browser ignores it. So a request from
an origin that is not listed passes without CORS fields, and the browser keeps the answer from the
page (refusing it would break same-origin POSTs, which carry Origin as well). A preflight asks for
nothing but permission, so there the refusal is said aloud: 403 `origin_denied`, counted like any
refusal.

A WebSocket is the exception: browsers open one to any host, with cookies, and CORS does not hold
them back. So there an origin that is neither listed nor the gateway's own is refused as well.

The policy owns the subject: Access-Control-* fields of the upstream are dropped, never doubled.
Only in report mode an origin that would be refused keeps what the upstream says to it.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from gateway.config.base import RefusingPolicyConfig
from gateway.config.model_route import FieldName, Method
from gateway.config.types import Duration, refuse
from gateway.errors import ORIGIN_DENIED, ConfigError, Refused, Rejection
from gateway.http1.head import TOKEN
from gateway.message import Exchange, Handler, Headers, RawHeaders, Response
from gateway.policies.base import Around, BuildContext

ANY: Final = "*"
_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\*\.)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}|\*))?", re.ASCII
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_FIELD_LIST: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z, \t]{1,4096}")
_VARY: Final = (b"vary", b"Origin")
_VARY_PREFLIGHT: Final = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
)
_CREDENTIALS: Final = (b"access-control-allow-credentials", b"true")
_ASKS_PRIVATE: Final = b"access-control-request-private-network"
_PRIVATE: Final = (b"access-control-allow-private-network", b"true")


def _origin(value: str) -> str:
    """An origin as browsers write it: lower case, without the scheme's own port (RFC 6454 6.2)."""
    if value == ANY:
        return value
    if value == "null":
        # Any page gets it by framing itself in a sandbox, so listing it would list everyone.
        hint = "* without credentials lets such pages read the answers"
        raise refuse("origin", "null is the origin of every sandboxed page", hint)
    match = _ORIGIN.fullmatch(value.lower())
    if match is None:
        hint = f"write {value.rstrip('/')}" if value.endswith("/") else ""
        message = "expected an origin such as https://app.internal or https://*.internal, or *"
        raise refuse("origin", message, hint)
    scheme, wildcard, host, port = match.groups()
    own = port is None or port == _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{wildcard or ''}{host}" + ("" if own else f":{port}")


Origin = Annotated[str, AfterValidator(_origin)]


class CorsConfig(RefusingPolicyConfig):
    """Which origins' pages may call the route, and what they may do and see."""

    origins: list[Origin] = Field(
        min_length=1,
        description="Origins such as https://app.internal; https://*.internal is every host below, "
        "http://localhost:* every port; * alone is everyone.",
    )
    methods: list[Method] | None = Field(
        default=None, description="Methods a page may use; those that the route takes if left out."
    )
    headers: list[FieldName] | None = Field(
        default=None, description="Fields a page may send; whatever it asks for if left out."
    )
    expose: list[FieldName] = Field(
        default=[], description="Fields of answers that a page may read, beside the usual ones."
    )
    max_age: Duration = Field(
        default=600.0, description="How long a browser may remember a preflight's answer."
    )
    credentials: bool = Field(
        default=False, description="Whether pages may send cookies and client certificates."
    )
    private_network: bool = Field(
        default=False,
        description="Whether pages of the public internet may call a gateway in a private network, "
        "where browsers ask for that.",
    )


class CorsPolicy(Around):
    """Answers preflights, and writes the CORS fields of all other answers, refusals included."""

    name: ClassVar[str] = "cors"
    Config: ClassVar[type[CorsConfig]] = CorsConfig

    def __init__(self, config: CorsConfig) -> None:
        self._any = ANY in config.origins
        self._reports = config.mode == "report"
        self._private = config.private_network
        self._exact = frozenset(o.encode() for o in config.origins if "*" not in o)
        self._wildcard = _wildcards(config.origins)
        self._common: RawHeaders = [_CREDENTIALS] if config.credentials else []
        self._expose = list(self._common)
        if config.expose:
            names = ", ".join(config.expose).encode()
            self._expose.append((b"access-control-expose-headers", names))
        self._methods = ", ".join(config.methods).encode() if config.methods else None
        self._headers = ", ".join(config.headers).encode() if config.headers is not None else None
        self._max_age = b"%d" % int(config.max_age)

    @classmethod
    def build(cls, config: CorsConfig, context: BuildContext) -> CorsPolicy:
        """Index the origins. Raises ConfigError for combinations that browsers do not honour."""
        del context
        if ANY in config.origins:
            if config.credentials:
                raise ConfigError("credentials need origins by name, not *", "origins")
            if len(config.origins) > 1:
                raise ConfigError("* is every origin; leave the others out", "origins")
        if config.credentials:
            for key in ("methods", "headers", "expose"):
                if ANY in (getattr(config, key) or ()):
                    # To a page with credentials, the Fetch standard's * is a name like any other.
                    raise ConfigError("with credentials, browsers take no * here", key)
        return cls(config)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Answer a preflight, or add the CORS fields to whatever answer leaves.

        Raises Refused for a preflight or a WebSocket from an origin that is not listed.
        """
        headers = exchange.request.headers
        origin = headers.get(b"origin")
        if origin is None:
            if not self._any:
                exchange.reply_headers.append(_VARY)
            return _without_cors(await forward(exchange))
        allowed = self._any or self._allows(origin)
        if exchange.request.method == "OPTIONS" and b"access-control-request-method" in headers:
            return self._preflight(exchange, origin, allowed=allowed)
        if exchange.subprotocols is not None and not allowed and not _is_own(origin, headers):
            raise Refused(Rejection(ORIGIN_DENIED, "a WebSocket from this origin"))
        if not self._any:
            exchange.reply_headers.append(_VARY)
        if allowed:
            exchange.reply_headers.append(self._allow_origin(origin))
            exchange.reply_headers.extend(self._expose)
        elif self._reports:
            return await forward(exchange)
        return _without_cors(await forward(exchange))

    def _allows(self, origin: bytes) -> bool:
        if origin in self._exact:
            return True
        return self._wildcard is not None and self._wildcard.fullmatch(origin) is not None

    def _allow_origin(self, origin: bytes) -> tuple[bytes, bytes]:
        return b"access-control-allow-origin", b"*" if self._any else origin

    def _preflight(self, exchange: Exchange, origin: bytes, *, allowed: bool) -> Response:
        if not allowed:
            raise Refused(Rejection(ORIGIN_DENIED, headers=[_VARY_PREFLIGHT]))
        fields = exchange.request.headers
        headers: RawHeaders = [_VARY_PREFLIGHT, self._allow_origin(origin), *self._common]
        # The route matched the method asked for, so it takes it: nothing more is to be said.
        methods = self._methods or fields.get(b"access-control-request-method") or b""
        if self._methods is not None or TOKEN.fullmatch(methods):
            headers.append((b"access-control-allow-methods", methods))
        names = self._headers
        if names is None:
            names = b", ".join(fields.get_all(b"access-control-request-headers"))
            if not _FIELD_LIST.fullmatch(names):
                names = b""
        if names:
            headers.append((b"access-control-allow-headers", names))
        if self._private and fields.get(_ASKS_PRIVATE) == b"true":
            headers.append(_PRIVATE)
        headers.append((b"access-control-max-age", self._max_age))
        return Response(204, headers)


def _wildcards(origins: list[str]) -> re.Pattern[bytes] | None:
    """One expression for all origins with a wildcard: one or more labels, or any port or none."""
    patterns = [
        re.escape(origin)
        .replace(r"\*\.", r"(?:[a-z0-9_-]+\.)+")
        .replace(r":\*", r"(?::[0-9]{1,5})?")
        for origin in origins
        if "*" in origin and origin != ANY
    ]
    return re.compile("|".join(patterns).encode()) if patterns else None


def _is_own(origin: bytes, headers: Headers) -> bool:
    """Whether the page came from the host that it now calls. The scheme may be a proxy's."""
    host = headers.get(b"host")
    return host is not None and origin.partition(b"://")[2] == host.lower()


def _without_cors(response: Response) -> Response:
    for name, _ in response.headers:
        if name.startswith(b"access-control-"):
            response.headers = [
                pair for pair in response.headers if not pair[0].startswith(b"access-control-")
            ]
            break
    return response
