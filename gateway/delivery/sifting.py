"""Tells by the events themselves which letters are meant, where the members do not say it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.delivery.asked import Unusable
from gateway.delivery.event import Head, decode_head
from gateway.delivery.letters import Letter
from gateway.delivery.mapping import BODY_ROOTS
from gateway.delivery.queue import Queue
from gateway.expressions import Expression, ExpressionError, ExpressionFailed
from gateway.message import Exchange, Headers, Principal, Request

# Expressions that are asked between two turns of the event loop.
_SLICE: Final = 20


class EventSieve:
    """What is asked of each event: an expression, its correlation id, or neither.

    `failed` counts the events that the expression had no answer for; these are not meant. Raises
    Unusable if `where` is no expression.
    """

    def __init__(self, queue: Queue, where: str, correlation_id: str) -> None:
        self._queue = queue
        self._correlation_id = correlation_id
        self._letter: Letter | None = None
        self._expression: Expression | None = None
        if where:
            roots = {**BODY_ROOTS, "letter": self._root}
            try:
                self._expression = Expression(where, roots)
            except ExpressionError as error:
                raise Unusable(f"where: {error}") from None
        self.needed = bool(where or correlation_id)
        self.failed = 0

    async def keep(self, letters: Sequence[Letter]) -> list[Letter]:
        """Those that are meant, in their order. Raises StoreError."""
        events = await asyncio.gather(*(self._read(each) for each in letters))
        kept = []
        for number, (letter, event) in enumerate(zip(letters, events, strict=True)):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            if event is not None and self._takes(letter, *event):
                kept.append(letter)
        return kept

    async def _read(self, letter: Letter) -> tuple[Head, bytes] | None:
        names = ["head", f"v:{letter.target}"] + (["body"] if self._expression else [])
        key = self._queue.key("event", letter.event)
        head, version, *body = await self._queue.store.call("HMGET", key, *names)
        if head is None:
            return None
        if version is not None and self._expression is not None:
            body = [await self._queue.store.call("HGET", key, b"body:" + version)]
        try:
            return decode_head(head), (body[0] if body else b"") or b""
        except msgspec.MsgspecError:
            return None

    def _takes(self, letter: Letter, head: Head, body: bytes) -> bool:
        if self._correlation_id and head.correlation_id != self._correlation_id:
            return False
        if self._expression is None:
            return True
        self._letter = letter
        try:
            return self._expression.holds(exchange_of(head, body))
        except ExpressionFailed:
            self.failed += 1
            return False

    def _root(self, exchange: Exchange) -> Any:
        del exchange
        letter = self._letter
        assert letter is not None
        return {
            "event": letter.event, "target": letter.target, "reason": letter.reason,
            "status": letter.status, "code": letter.code, "at": letter.at / 1000,
        }  # fmt: skip


def exchange_of(head: Head, body: bytes) -> Exchange:
    """The exchange that an event came with, to look at."""
    headers = Headers(list(head.headers))
    if body:
        headers.set(b"content-length", b"%d" % len(body))
    headers.set(b"idempotency-key", b'"%b"' % head.key.encode("ascii", "replace"))
    request = Request(head.method, head.path, head.query, headers, head.host)
    request.body = body
    request.client = request.peer = head.client
    request.scheme, request.port = head.scheme, head.port
    exchange = Exchange(request, 0.0)
    exchange.route, exchange.generation = head.route, head.generation
    exchange.params, exchange.raw_params = head.params, head.raw_params
    exchange.correlation_id = head.correlation_id
    if head.consumer or head.identity:
        exchange.principal = Principal(head.consumer, {}, frozenset(), head.identity, head.tier)
    return exchange
