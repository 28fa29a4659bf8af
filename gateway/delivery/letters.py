"""Dead letters as they stand in the store, and which of them somebody means. Pure.

A letter is one event that was given up for one target. Its member in the set of its route says all
that most questions are about, so that nothing of the event has to be read for them.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Sequence
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


Sieve = Callable[[Sequence[bytes]], Sequence[int]]


def sieve(wanted: Wanted) -> Sieve | None:
    """Gives the places of those members that are meant; None if all are. Raises Unusable.

    Looks at bytes, and at all at once, because there may be some hundred thousand of them.
    """
    status = str(wanted.status)
    if status and not _STATUS.fullmatch(status):
        raise Unusable("status: expected a number, or a class such as 5xx")
    fields = [wanted.event, wanted.target, wanted.reason, wanted.code]
    if any(" " in text for text in fields):
        raise Unusable("event, target, reason and code are single words")
    exact = [(place, text.encode()) for place, text in enumerate(fields) if text]
    whole_class = status.removesuffix("xx").encode() if status.endswith("xx") else b""
    if status and not whole_class:
        exact.append((_MEMBER - 1, status.encode()))
    if not exact and not whole_class:
        return None

    def meant(member: bytes) -> bool:
        parts = member.split(b" ")
        return (
            len(parts) == _MEMBER
            and all(parts[place] == text for place, text in exact)
            and (not whole_class or (parts[4].startswith(whole_class) and len(parts[4]) == 3))
        )

    # Most are told apart by this, which is quicker than taking members to pieces.
    needle = max((text for _, text in exact), key=len, default=b" ")

    def places(members: Sequence[bytes]) -> Sequence[int]:
        likely = [place for place, member in enumerate(members) if needle in member]
        return [place for place in likely if meant(members[place])]

    return places


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
