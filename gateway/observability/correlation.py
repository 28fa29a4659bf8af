"""The id that an exchange is followed by: taken from the client or made.

What may be configured about it is the policy's; this is apart from it so that it can be compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.message import Exchange

# Safe in a header, a log line and a URL, and short enough for all of them.
_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_REQUEST_ID: Final = b"x-request-id"
_BATCH: Final = 64


class Correlator:
    """Gives exchanges their ids, in the field `header`.

    `accept` takes the client's own. `randbytes` gives so many random bytes.
    """

    __slots__ = ("_accept", "_header", "_made", "_randbytes", "_watches_request_id")

    def __init__(self, header: bytes, accept: bool, randbytes: Callable[[int], bytes]) -> None:
        self._header = header
        self._accept = accept
        self._watches_request_id = header != _REQUEST_ID
        self._randbytes = randbytes
        self._made: list[str] = []

    def identify(self, exchange: Exchange) -> None:
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
                made = self._made = self._randbytes(16 * _BATCH).hex("-", 16).split("-")
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
