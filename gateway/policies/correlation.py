"""correlation: every exchange has an id, which the upstream, the client and the log all see.

An id is taken from the client if it is one at all. It proves nothing and opens nothing, so any
client may choose it: a gateway inside a company is called by services that began the flow, rarely
by trusted proxies alone. Where clients are strangers, `accept: false` makes every id our own.

X-Request-ID names one hop's request, so none is made here: the client's own passes and is echoed,
unless it is malformed or `accept` is off. A flow that is followed by that field is configured with
`header: X-Request-ID`.
"""

from __future__ import annotations

import random
import re
from typing import Any, ClassVar, Final

from pydantic import Field

from gateway.config.base import PolicyConfig
from gateway.config.fields import EndToEndField
from gateway.message import Exchange
from gateway.policies.base import BuildContext, Guard

# Safe in a header, a log line and a URL, and short enough for all of them.
_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_REQUEST_ID: Final = b"x-request-id"
_BATCH: Final = 64


class CorrelationConfig(PolicyConfig):
    """How exchanges are told apart, and followed from service to service."""

    header: EndToEndField = Field(
        default="X-Correlation-ID",
        description="The field that carries the id, in requests and in answers.",
    )
    accept: bool = Field(
        default=True,
        description="Take the id from the client if it sends one of up to 128 letters, digits and "
        "._:- characters; false makes a new one for every request.",
    )


class CorrelationPolicy(Guard):
    """Gives the exchange its id. Never refuses."""

    name: ClassVar[str] = "correlation"
    Config: ClassVar[type[CorrelationConfig]] = CorrelationConfig
    default: ClassVar[Any] = {}

    def __init__(self, config: CorrelationConfig, rng: random.Random) -> None:
        self._header = config.header.lower().encode("ascii")
        self._accept = config.accept
        self._watches_request_id = self._header != _REQUEST_ID
        self._bytes = rng.randbytes
        self._made: list[str] = []

    @classmethod
    def build(cls, config: CorrelationConfig, context: BuildContext) -> CorrelationPolicy:
        """Keep the field's name and the source of ids."""
        return cls(config, context.random)

    def check(self, exchange: Exchange) -> None:
        """Take or make the id; put it on the request and on the answer."""
        headers = exchange.request.headers
        index = headers.index
        header = self._header
        if self._watches_request_id and _REQUEST_ID in index:
            self._pass_request_id(exchange)
        sent = index.get(header)
        if sent is not None and self._accept and _ID.fullmatch(sent):
            # Sent twice, it is no one id: the upstream could read the other one.
            if len(headers.get_all(header)) > 1:
                headers.set(header, sent)
            value = sent
            exchange.correlation_id = sent.decode("ascii")
        else:
            made = self._made
            if not made:
                # A batch at a time: one call for each id costs more than the id.
                made = self._made = self._bytes(16 * _BATCH).hex("-", 16).split("-")
            exchange.correlation_id = identifier = made.pop()
            value = identifier.encode("ascii")
            headers.set(header, value)
        exchange.reply_headers.append((header, value))

    def _pass_request_id(self, exchange: Exchange) -> None:
        headers = exchange.request.headers
        value, *more = headers.get_all(_REQUEST_ID)
        if self._accept and not more and _ID.fullmatch(value):
            exchange.reply_headers.append((_REQUEST_ID, value))
        else:
            headers.remove(_REQUEST_ID)
