"""When a cron expression comes, in a time zone. Pure: moments in, moments out.

The expression is read, and days are matched, by cronsim, which keeps to Debian's cron: if the day
of month or the day of week begins with a star both must match, otherwise one of them. Where clocks
are put forward or back, the rules are Debian's as well:

- A job at fixed times (neither minute nor hour begins with a star) comes once each day that it is
  for: what falls into the hour that is left out comes at the end of that gap, what falls into the
  hour that is there twice comes in the first one. Of two that fall together, one is left.
- Any other job (`*/5 * * * *`, `0 * * * *`) comes whenever the clock on the wall shows it: not in
  an hour that is left out, and twice in one that is there twice.

From a local date to its ticks is a function of that date alone, so the same ticks are found from
wherever one counts, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim

_DAY: Final = timedelta(days=1)
# Of leap years, weekdays and months, every combination that comes at all has come by then.
_YEARS: Final = 50
# Longer gaps are no daylight saving, but a change of the date: what falls into one is left out.
_LONGEST_GAP: Final = timedelta(hours=3)
# One looks at the same few days again and again.
_DAYS_KEPT: Final = 4
# How far transitions reach beyond the date that they belong to.
_MARGIN_S: Final = 4 * 3600


class Ticks:
    """The moments of a five-field expression, as Unix seconds. Both arguments were checked; `text`
    is the expression.
    """

    def __init__(self, cron: str, zone: str) -> None:
        self.text = cron
        self.zone = ZoneInfo(zone)
        self._cron = CronSim(cron, datetime(2024, 1, 1))  # noqa: DTZ001 - only its fields are used
        minute, hour = self._cron.parts[1:3]
        self._fixed = not minute.startswith("*") and not hour.startswith("*")
        self._days: dict[date, list[float]] = {}
        self._times = [
            (hour, minute)
            for hour in sorted(self._cron.hours)
            for minute in sorted(self._cron.minutes)
        ]

    def after(self, moment: float) -> Iterator[float]:
        """Those later than `moment`, in order; ends if none comes for 50 years."""
        last = moment
        # A gap across midnight puts ticks of one date into the next.
        day = self._date(moment) - _DAY
        until = day.year + _YEARS
        while day.year <= until:
            if day.month not in self._cron.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            for tick in self._of(day):
                if tick > last:
                    until = day.year + _YEARS
                    last = tick
                    yield tick
            day += _DAY

    def before(self, moment: float) -> Iterator[float]:
        """Those not later than `moment`, the newest first; ends after 50 years without one."""
        last = moment + 1
        day = self._date(moment)
        until = day.year - _YEARS
        while day.year >= until:
            if day.month not in self._cron.months:
                day = day.replace(day=1) - _DAY
                continue
            for tick in reversed(self._of(day)):
                if tick < last and tick <= moment:
                    until = day.year - _YEARS
                    last = tick
                    yield tick
            day -= _DAY

    def shown(self, tick: float) -> str:
        """A tick as people of that time zone write it (RFC 3339)."""
        return datetime.fromtimestamp(tick, self.zone).isoformat(timespec="seconds")

    def _date(self, moment: float) -> date:
        return datetime.fromtimestamp(moment, self.zone).date()

    def _of(self, day: date) -> list[float]:
        """The ticks of a local date, in order."""
        found = self._days.get(day)
        if found is None:
            if len(self._days) >= _DAYS_KEPT:
                self._days.clear()
            found = self._days[day] = self._find(day)
        return found

    def _find(self, day: date) -> list[float]:
        if not self._cron.match_day(day):
            return []
        midnight = datetime.combine(day, time(), self.zone)
        following = datetime.combine(day + _DAY, time(), self.zone)
        if midnight.utcoffset() == following.utcoffset() and _is_real(midnight):
            base = midnight.timestamp()
            return [base + hour * 3600 + minute * 60 for hour, minute in self._times]
        if self._fixed:
            return self._fixed_times(day)
        return self._shown_times(day, midnight, following)

    def _fixed_times(self, day: date) -> list[float]:
        found: list[float] = []
        for hour, minute in self._times:
            moment = datetime.combine(day, time(hour, minute), self.zone)
            wanted = moment
            while not _is_real(moment) and moment - wanted <= _LONGEST_GAP:
                moment += timedelta(minutes=1)
            if _is_real(moment):
                found.append(moment.timestamp())
        return sorted(set(found))

    def _shown_times(self, day: date, midnight: datetime, following: datetime) -> list[float]:
        times = set(self._times)
        found = []
        begin, end = int(midnight.timestamp()), int(following.timestamp())
        for moment in range(begin - _MARGIN_S, end + _MARGIN_S, 60):
            local = datetime.fromtimestamp(moment, self.zone)
            if local.date() == day and (local.hour, local.minute) in times:
                found.append(float(moment))
        return found


def _is_real(moment: datetime) -> bool:
    """Whether clocks show it at all, and do not go over it."""
    return moment.astimezone(UTC).astimezone(moment.tzinfo) == moment
