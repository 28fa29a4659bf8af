"""What operators may ask of schedules and streams: the operations, and the rows they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.delivery.asked import given
from gateway.delivery.dispatcher import Dispatcher


class ScheduleInfo(msgspec.Struct):
    """A schedule. Times are text in its time zone (RFC 3339); `done` is the newest tick that is
    over, `fired` the newest one that became an event, the one with that id.
    """

    name: str
    route: str
    cron: str
    timezone: str
    missed: str
    next: str | None
    done: str
    fired: str | None = None
    fired_at: str | None = None
    event_id: str = ""


class StreamInfo(msgspec.Struct):
    """A stream that events come from. `pending` is what its group has handed out and that is not
    confirmed; None if its server can't be asked. `reading` is False while another gateway reads.
    """

    name: str
    route: str
    address: str
    stream: str
    group: str
    up: bool
    reading: bool
    pending: int | None


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    route: str = ""


async def schedules(dispatcher: Dispatcher, params: Mapping[str, Any]) -> dict[str, Any]:
    """All schedules of the configuration, or those of one `route`."""
    return await _rows("schedules", dispatcher, params)


async def streams(dispatcher: Dispatcher, params: Mapping[str, Any]) -> dict[str, Any]:
    """All streams of the configuration, or those of one `route`."""
    return await _rows("streams", dispatcher, params)


async def _rows(name: str, dispatcher: Dispatcher, params: Mapping[str, Any]) -> dict[str, Any]:
    asked = given(params, _Asked)
    listing = dispatcher.listings.get(name)
    rows = [] if listing is None else await listing()
    return {name: [row for row in rows if asked.route in ("", row.route)]}
