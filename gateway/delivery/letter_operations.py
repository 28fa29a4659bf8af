"""The operations on dead letters: list, show, replay, purge."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from gateway.delivery.asked import Conflict, Missing, Unusable, given
from gateway.delivery.discard import discard
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.event import Head, decode_head, decode_record
from gateway.delivery.letters import Letter, Wanted
from gateway.delivery.queued import Lane
from gateway.delivery.replay import Order, Replay, versions_of
from gateway.delivery.search import Stretch, letters_of
from gateway.delivery.status import EventStatus, read, status_of

_MOST: Final = 1000
_BODY: Final = 10 * 1024 * 1024
_SHOWN: Final = 256 * 1024
"""Bytes of a body that are shown."""
_HIDDEN: Final = "[redacted]"

Limit = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]


class _List(Wanted, frozen=True, kw_only=True):
    limit: Limit = 100
    cursor: str = ""
    count: bool = False


class _Order(Wanted, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = 200
    cursor: str = ""
    all: bool = False
    by: str = ""

    @property
    def filtered(self) -> bool:
        """Whether anything says which letters are meant."""
        return any(getattr(self, name) not in ("", None) for name in Wanted.__struct_fields__)


class _Replay(_Order, frozen=True, kw_only=True):
    to: str = ""
    body: str | None = None
    body_base64: str | None = None
    force: bool = False


class _Show(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    event: str
    body: bool = False
    version: int | None = None


class LetterInfo(msgspec.Struct):
    """A dead letter. `at` is when it became one (Unix seconds); `epoch` counts replays, from 1."""

    event: str
    route: str
    target: str
    reason: str
    code: str
    status: int
    at: float
    correlation_id: str = ""
    attempts: int = 0
    epoch: int = 1
    detail: str = ""


class Listing(msgspec.Struct):
    """One page: its letters, how many were meant of those that were looked at (`scanned`), and
    where the next page begins, empty at the end. `failed` counts events that the expression had no
    answer for.
    """

    letters: list[LetterInfo]
    matched: int
    scanned: int
    failed: int
    cursor: str


class Replayed(msgspec.Struct):
    """What one call of a replay did; `cursor` as in Listing. `skipped` counts by cause."""

    replayed: int
    skipped: dict[str, int]
    details: list[str]
    scanned: int
    failed: int
    cursor: str


class Purged(msgspec.Struct):
    """What one call of a purge did."""

    removed: int
    scanned: int
    failed: int
    cursor: str


class Version(msgspec.Struct):
    """One version of an event's body: 0 is the one that came, the others are corrections.

    `size` is None once it was let go of, because all targets have the event.
    """

    version: int
    size: int | None
    used_by: list[str]


class Letters(msgspec.Struct):
    """An event with everything that is known of it."""

    status: EventStatus
    letters: list[LetterInfo]
    request: dict[str, Any]
    versions: list[Version]
    body: dict[str, Any] | None = None


async def list_letters(dispatcher: Dispatcher, params: Mapping[str, Any]) -> Listing:
    """A page of them. With `count` all that are meant are counted, and `limit` are shown."""
    asked = given(params, _List)
    stretch = await _stretch(dispatcher, asked, asked.cursor)
    found: list[Letter] = []
    matched = 0
    async for letter in stretch.letters():
        matched += 1
        if len(found) < asked.limit:
            found.append(letter)
        if len(found) >= asked.limit and not asked.count:
            stretch.stop_behind(letter)
            break
    letters = await asyncio.gather(*(_info(dispatcher, each) for each in found))
    return Listing(letters, matched, stretch.scanned, stretch.failed, stretch.cursor)


async def replay_letters(dispatcher: Dispatcher, params: Mapping[str, Any]) -> Replayed:
    """Send up to `limit` of them on their way again; call it with the cursor until that is empty.

    With a corrected body they must be those of one event.
    """
    asked = given(params, _Replay)
    body = _body(asked)
    if body is not None and not asked.event:
        raise Unusable("a corrected body is for one event: give its id")
    if asked.to and asked.route and Lane(asked.route, asked.to) not in dispatcher.lanes():
        raise Conflict(f"the route {asked.route} has no target {asked.to}")
    letters, stretch = await _meant(dispatcher, asked)
    if body is not None and not letters:
        raise Missing(f"the event {asked.event} has no such dead letter")
    order = Order(asked.to, body, asked.by, asked.force)
    done = await Replay(dispatcher, order).send(letters)
    return Replayed(
        done.replayed, dict(done.skipped), done.details, stretch.scanned, stretch.failed,
        stretch.cursor,
    )  # fmt: skip


async def purge_letters(dispatcher: Dispatcher, params: Mapping[str, Any]) -> Purged:
    """Throw up to `limit` of them away; call it with the cursor until that is empty."""
    asked = given(params, _Order)
    letters, stretch = await _meant(dispatcher, asked)
    removed = await discard(dispatcher, letters, "purged", asked.by)
    return Purged(removed, stretch.scanned, stretch.failed, stretch.cursor)


async def show_letter(dispatcher: Dispatcher, params: Mapping[str, Any]) -> Letters:
    """One event: every attempt, every version of its body, and what is to be seen of its request.

    Also for an event that is no dead letter.
    """
    asked = given(params, _Show)
    fields = await dispatcher.queue.fields(asked.event)
    try:
        stored = read(asked.event, fields)
    except msgspec.MsgspecError:
        raise Conflict("the event was written by a version that says more") from None
    if stored is None:
        raise Missing(f"There is no event {asked.event}.")
    letters = await letters_of(dispatcher.queue, asked.event)
    infos = await asyncio.gather(*(_info(dispatcher, each) for each in letters))
    versions = [_version(fields, each) for each in versions_of(fields)]
    plan = dispatcher.route(stored.head.route)
    hidden = plan.secret_fields if plan is not None else frozenset()
    found = Letters(status_of(stored, full=True), infos, _request(stored.head, hidden), versions)
    if asked.body or asked.version is not None:
        wanted = versions[-1].version if asked.version is None else asked.version
        data = fields.get(_body_field(wanted))
        if data is None:
            raise Missing(f"There is no version {wanted} of the body of {asked.event}.")
        found.body = {"version": wanted, **_readable(data)}
    return found


async def _stretch(dispatcher: Dispatcher, wanted: Wanted, cursor: str) -> Stretch:
    # By the clock that wrote when the letters became some.
    seconds, micros = await dispatcher.queue.store.call("TIME")
    return Stretch(dispatcher, wanted, cursor, int(seconds) + int(micros) / 1_000_000)


async def _meant(dispatcher: Dispatcher, asked: _Order) -> tuple[list[Letter], Stretch]:
    if not asked.filtered and not asked.all:
        raise Unusable("say which letters are meant, or all: true")
    stretch = await _stretch(dispatcher, asked, asked.cursor)
    letters: list[Letter] = []
    async for letter in stretch.letters():
        letters.append(letter)
        if len(letters) >= asked.limit:
            stretch.stop_behind(letter)
            break
    return letters, stretch


def _body(asked: _Replay) -> bytes | None:
    if asked.body is not None and asked.body_base64 is not None:
        raise Unusable("give body or body_base64, not both")
    body = asked.body.encode() if asked.body is not None else None
    if asked.body_base64 is not None:
        try:
            body = base64.b64decode(asked.body_base64, validate=True)
        except binascii.Error:
            raise Unusable("body_base64: not base64") from None
    if body is not None and len(body) > _BODY:
        raise Unusable(f"a corrected body may have {_BODY} bytes")
    return body


async def _info(dispatcher: Dispatcher, letter: Letter) -> LetterInfo:
    queue = dispatcher.queue
    info = LetterInfo(
        letter.event, letter.route, letter.target, letter.reason, letter.code, letter.status,
        letter.at / 1000,
    )  # fmt: skip
    head, record = await queue.store.call(
        "HMGET", queue.key("event", letter.event), "head", f"t:{letter.target}"
    )
    try:
        info.correlation_id = decode_head(head or b"").correlation_id
        known = decode_record(record or b"")
    except msgspec.MsgspecError:
        return info
    info.attempts, info.epoch, info.detail = known.attempts, known.epoch, known.detail
    return info


def _body_field(version: int) -> bytes:
    return b"body:%d" % version if version else b"body"


def _version(fields: Mapping[bytes, bytes], version: int) -> Version:
    used = [
        name[2:].decode()
        for name in fields
        if name.startswith(b"t:") and int(fields.get(b"v:" + name[2:], b"0")) == version
    ]
    body = fields.get(_body_field(version))
    return Version(version, None if body is None else len(body), used)


def _request(head: Head, hidden: frozenset[bytes]) -> dict[str, Any]:
    headers = [
        [name.decode("latin-1"), _HIDDEN if name in hidden else value.decode("latin-1")]
        for name, value in head.headers
    ]
    return {
        "method": head.method, "path": head.path, "query": head.query.decode("latin-1"),
        "host": head.host, "headers": headers, "params": head.params, "consumer": head.consumer,
        "client": head.client, "key": head.key, "generation": head.generation,
    }  # fmt: skip


def _readable(data: bytes) -> dict[str, Any]:
    shown = data[:_SHOWN]
    facts: dict[str, Any] = {"size": len(data), "whole": len(shown) == len(data)}
    try:
        return {**facts, "text": shown.decode()}
    except UnicodeDecodeError:
        return {**facts, "base64": base64.b64encode(shown).decode()}
