"""Dead letters as they stand in the store, and which of them somebody means. Pure.

A letter is one event that was given up for one target. Its member in the set of its route says all
that most questions are about, so that nothing of the event has to be read for them.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.config.moment import parse_moment
from gateway.config.types import parse_duration
from gateway.delivery.asked import Unusable

_STATUS: Final = re.compile(r"\d{1,3}|[1-5]xx")
_MEMBER: Final = 5


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which letters are meant: all that is given must hold.

    `status` is a number or a class (5xx). `since` (included) and `until` (not) are times of death:
    RFC 3339, Unix seconds, or so long ago (2h). `where` is a CEL expression over the event.
    """

    route: str = ""
    target: str = ""
    reason: str = ""
    code: str = ""
    status: str | int = ""
    since: str | float = ""
    until: str | float = ""
    event: str = ""
    correlation_id: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. `at` is when it became one, in ms; `status` is 0 if there was no answer."""

    route: str
    at: int
    event: str
    target: str
    reason: str
    code: str
    status: int
    member: bytes


def read_letter(route: str, member: bytes, at: int) -> Letter | None:
    """None for a member that was not written by `queue.letter`."""
    parts = member.decode("utf-8", "replace").split(" ")
    if len(parts) != _MEMBER or not parts[4].isdigit():
        return None
    code = "" if parts[3] == "-" else parts[3]
    return Letter(route, at, parts[0], parts[1], parts[2], code, int(parts[4]), member)


Sieve = Callable[[bytes], bool]


def sieve(wanted: Wanted) -> Sieve | None:
    """Whether a member is one of those that are meant; None if all are. Raises Unusable.

    Looks at bytes, because there may be some hundred thousand of them.
    """
    status_text = str(wanted.status)
    if status_text and not _STATUS.fullmatch(status_text):
        raise Unusable("status: expected a number, or a class such as 5xx")
    fields = (wanted.event, wanted.target, wanted.reason, wanted.code)
    for text in fields:
        if " " in text:
            raise Unusable("event, target, reason and code are single words")
    tests = [(place, text.encode()) for place, text in enumerate(fields) if text]
    status = status_text.encode()
    whole_class = status[:1] if status.endswith(b"xx") else b""
    if not tests and not status:
        return None

    def takes(member: bytes) -> bool:
        for _, text in tests:
            # Most are told apart by this, which is quicker than taking the member to pieces.
            if text not in member:
                return False
        parts = member.split(b" ")
        if len(parts) != _MEMBER or any(parts[place] != text for place, text in tests):
            return False
        if whole_class:
            return len(parts[4]) == len(status) and parts[4].startswith(whole_class)
        return not status or parts[4] == status

    return takes


def moment(given: str | float, now: float) -> float:
    """A time in Unix seconds, from what `Wanted` takes. Raises Unusable."""
    text = str(given)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds):
        return seconds
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return parse_moment(text)
    except ValueError:
        message = f"{text[:40]}: expected a time such as 2026-01-31T12:00:00Z, or an age such as 2h"
        raise Unusable(message) from None


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last letter that was looked at, and until when they are meant (ms): a replay must not
    meet again what it sent on its way. `at` is -1 if none of this route was.
    """

    route: str
    at: int
    member: bytes
    until: int


_encode = msgspec.msgpack.Encoder().encode
_cursor = msgspec.msgpack.Decoder(Cursor).decode


def write_cursor(cursor: Cursor) -> str:
    """As it goes through URLs."""
    return base64.urlsafe_b64encode(_encode(cursor)).rstrip(b"=").decode()


def read_cursor(text: str) -> Cursor:
    """Raises Unusable."""
    try:
        return _cursor(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, msgspec.MsgspecError):
        raise Unusable("cursor: not one that an answer gave") from None
