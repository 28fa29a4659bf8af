"""The short way: a stored answer that is fresh, given without waiting for anything.

Apart from the policy so that it can be compiled. It decides nothing by itself: what it gives is
what `rules.judge` calls fresh, and everything else takes the long way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.message import Exchange, Response
from gateway.policies.cache.entry import Entry
from gateway.policies.cache.key import Ask, Reader
from gateway.policies.cache.memory import MemoryTier
from gateway.policies.cache.rules import Verdict, judge
from gateway.policies.cache.status import hit
from gateway.policies.cache.validation import not_modified, not_modified_headers

TRUST_S: Final = 1.0
"""For how long what is in memory is given without asking the store, on routes that share."""


class Hits:
    """Gives fresh answers of one route. `trust_s` is how long ago the store must have been asked.

    `results` counts under `label`; `now` and `wall` are the clock's.
    """

    def __init__(
        self,
        memory: MemoryTier,
        reader: Reader,
        *,
        trust_s: float,
        results: dict[tuple[str, ...], float],
        label: tuple[str, ...],
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._memory = memory
        self._reader = reader
        self._trust_s = trust_s
        self._results = results
        self._label = label
        self._now = now
        self._wall = wall

    def give(self, exchange: Exchange) -> Response | None:
        """The answer to a GET or HEAD without a body, None if it takes more than a look."""
        request = exchange.request
        if exchange.subprotocols is not None:
            return None
        ask = self._reader.read(exchange)
        if ask.bypass:
            return None
        headers = request.headers
        host = headers.index.get(b"host", b"")
        uri = host.lower(), request.scheme, request.path, request.query
        entry = self._memory.find(uri, ask.slot, headers)
        if entry is None or (ask.credentials and not entry.open):
            return None
        now = self._now()
        if now - entry.asked >= self._trust_s:
            return None
        control = ask.control
        if control is None:
            if now >= entry.fresh_until:
                return None
        elif judge(entry, control, now) is not Verdict.FRESH:
            return None
        self._memory.touch(entry)
        exchange.cache = "hit"
        self._results[self._label] = self._results.get(self._label, 0) + 1
        if ask.conditional or request.method == "HEAD":
            return self._part(exchange, entry, ask, now)
        # Made once a second, since only Age and ttl change.
        second = int(now - entry.born)
        if second != entry.second:
            entry.second = second
            ttl = int(entry.fresh_until - entry.born) - second
            entry.reply = [*entry.headers, (b"age", b"%d" % second), hit(ttl)]
        return Response(entry.status, entry.reply.copy(), entry.body)

    def _part(self, exchange: Exchange, entry: Entry, ask: Ask, now: float) -> Response:
        head = exchange.request.method == "HEAD"
        return give(entry, now, ask, head, hit(int(entry.fresh_until - now)), self._wall())


def give(
    entry: Entry, now: float, ask: Ask, head: bool, field: tuple[bytes, bytes], wall: float
) -> Response:
    """The answer that a stored one makes, a 304 if the client has it already.

    `now` is monotonic and `wall` Unix seconds; `head` says that the body is not wanted.
    """
    age = b"age", b"%d" % max(0.0, now - entry.born)
    conditions = ask.none_match, ask.modified_since
    if ask.conditional and entry.status == 200 and not_modified(entry.headers, *conditions, wall):
        return Response(304, [*not_modified_headers(entry.headers), age, field])
    return Response(entry.status, [*entry.headers, age, field], b"" if head else entry.body)
