"""The field that carries the gateway's credentials, on each request to the upstream.

It replaces the field of that name that the client sent, in every spelling: what the client proved
itself with is for the gateway, and must not reach a service that trusts the gateway.

A token that the upstream answers with 401 is fetched anew, and the request is sent once more if its
body is there whole: refusing credentials, an upstream has done nothing yet (RFC 9110 section
15.5.2), so that is safe for every method. Short bodies are read whole for that. What streamed can't
be sent again: its 401 goes to the client, and the next request has the new token.
"""

from __future__ import annotations

import base64
import hashlib
from typing import ClassVar, Final
from urllib.parse import urlsplit

from gateway.config.fields import is_plain_value
from gateway.errors import ConfigError
from gateway.http1.head import connection_tokens
from gateway.message import Exchange, Handler, Headers, Response
from gateway.observability.families import UPSTREAM_TOKENS
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.upstream_auth.config import (
    BasicCredentials,
    BearerCredentials,
    ClientCredentials,
    UpstreamAuthConfig,
)
from gateway.policies.upstream_auth.endpoint import (
    MAX_ANSWER,
    Granted,
    NoToken,
    read_answer,
    token_request,
)
from gateway.policies.upstream_auth.source import TokenSource

_AUTHORIZATION: Final = b"authorization"
# Bodies up to this many bytes are read whole, as far as their length is told.
_KEPT: Final = 64 * 1024


class UpstreamAuthPolicy(Around):
    """Writes the credentials into each request: `value`, or the token that `source` has."""

    name: ClassVar[str] = "upstream_auth"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[UpstreamAuthConfig]] = UpstreamAuthConfig

    def __init__(self, field: bytes, value: bytes, source: TokenSource | None) -> None:
        self._field = field
        self._value = value
        self._source = source

    @classmethod
    def build(cls, config: UpstreamAuthConfig, context: BuildContext) -> UpstreamAuthPolicy:
        """Encode what stands fast. Raises ConfigError, without the secret, if no field takes it."""
        given = config.root
        if isinstance(given, ClientCredentials):
            return cls(_AUTHORIZATION, b"", _source(given, context))
        field = _AUTHORIZATION
        if isinstance(given, BearerCredentials):
            value = "Bearer " + _plain(given.token.get_secret_value(), "token")
        elif isinstance(given, BasicCredentials):
            pair = f"{given.username}:{given.password.get_secret_value()}".encode()
            value = "Basic " + base64.b64encode(pair).decode()
        else:
            field = given.name.lower().encode()
            value = _plain(given.value.get_secret_value(), "value")
        return cls(field, value.encode(), None)

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Forward with the credentials. Raises GatewayError(UPSTREAM_CREDENTIALS) without any."""
        source = self._source
        headers = exchange.request.headers
        if source is None:
            write(headers, self._field, self._value)
            return await forward(exchange)
        token = source.current()
        if token is None:
            token = await source.obtain()
        write(headers, self._field, b"Bearer " + token.encode())
        request = exchange.request
        if request.body is None and is_short(headers):
            await request.read_body(_KEPT)
        may_repeat = request.body is not None
        response = await forward(exchange)
        if response.status != 401:
            return response
        if not may_repeat:
            source.reject(token)
            return response
        try:
            newer = await source.replace(token)
        except BaseException:
            response.close()
            raise
        if newer is None:
            return response
        response.close()
        write(headers, self._field, b"Bearer " + newer.encode())
        return await forward(exchange)


def is_short(headers: Headers) -> bool:
    """Whether the body is told to be short enough to be kept."""
    length = headers.get(b"content-length")
    return (
        length is not None
        and b"transfer-encoding" not in headers
        and length.isdigit()
        and len(length) < 10
        and int(length) <= _KEPT
    )


def write(headers: Headers, field: bytes, value: bytes) -> None:
    """Put the credentials in place of whatever the client sent under that name, however spelt.

    A client that names the field in Connection would have it dropped on the way: it can't.
    """
    index = headers.index
    for name in index:
        if (b"_" in name or b"." in name) and name != field and _same(name, field):
            headers.replace([pair for pair in headers.raw if not _same(pair[0], field)])
            break
    if b"connection" in index:
        named = connection_tokens(headers.raw)
        if field in named:
            headers.set(b"connection", b", ".join(sorted(named - {field})))
    headers.set(field, value)


def _same(name: bytes, field: bytes) -> bool:
    """Whether servers that turn every sign into the same variable would read one for the other."""
    return name.replace(b"_", b"-").replace(b".", b"-") == field.replace(b"_", b"-").replace(
        b".", b"-"
    )


def _plain(value: str, key: str) -> str:
    if not is_plain_value(value):
        raise ConfigError("a field holds visible ASCII only, with spaces inside alone", key)
    return value


def _source(config: ClientCredentials, context: BuildContext) -> TokenSource:
    # Here, because the client takes memory that a gateway without it should not pay for.
    from gateway.control.client import ControlError, Trust  # noqa: PLC0415

    http = context.http()
    headers, form = token_request(config)
    trust = Trust(ca=config.ca)
    parts = urlsplit(config.token_url)
    endpoint = parts.netloc
    counts = context.metrics.counts(UPSTREAM_TOKENS)

    async def fetch() -> Granted:
        try:
            reply = await http.post_form(
                config.token_url,
                form,
                headers=headers,
                trust=trust,
                timeout=config.timeout,
                max_bytes=MAX_ANSWER,
            )
        except ControlError as error:
            raise NoToken(error.reason) from None
        return read_answer(reply.status, reply.body)

    # All of the credentials, so that a changed secret begins anew; as a digest, because keys may
    # be shown.
    digest = hashlib.sha256(repr((config.token_url, headers, form, config.ca)).encode()).hexdigest()
    source: TokenSource = context.shared(
        ("upstream token", digest),
        lambda: TokenSource(
            f"{config.client_id} at {endpoint}",
            fetch,
            context.clock,
            context.random,
            lambda outcome: counts.add(endpoint, outcome),
        ),
    )
    return source
