"""How fast a command goes through many things, and how it shows how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import click

from gateway.config.rates import parse_rate

_SHOW_EVERY_S: Final = 0.5
# At a low rate, as many as a quarter of a second allows at once: small bursts, few calls.
_SLICE_S: Final = 0.25


def read_rate(text: str) -> tuple[int, float]:
    """So many in so many seconds; (0, 0.0) for no rate. Raises click.UsageError."""
    if not text:
        return 0, 0.0
    try:
        rate = parse_rate(text)
    except ValueError as error:
        raise click.UsageError(f"--rate: {error}") from None
    return rate.count, rate.period_us / 1_000_000


class Pacer:
    """Says how many may be done next, and waits until that is so."""

    def __init__(
        self,
        count: int,
        seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._every = seconds / count if count else 0.0
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    def take(self, most: int) -> int:
        """Wait, and give how many may be done now."""
        if not self._every:
            return most
        now = self._clock()
        if self._free_at > now:
            self._sleep(self._free_at - now)
        self._free_at = max(self._free_at, now)
        return max(1, min(most, round(_SLICE_S / self._every)))

    def used(self, count: int) -> None:
        """So many were done."""
        self._free_at += count * self._every


class Progress:
    """A line on stderr: how many of how many, and how many a second. On a terminal it moves.

    To be entered: the last word is said however the block ends, an interruption included.
    """

    def __init__(self, total: int, verb: str, clock: Callable[[], float]) -> None:
        self.done = 0
        self._passed = 0
        self._total = total
        self._verb = verb
        self._clock = clock
        self._since = clock()
        self._shown_at = self._since
        self._moves = sys.stderr.isatty()

    def more(self, done: int, skipped: int = 0) -> None:
        """So many more were done, and so many left out."""
        self.done += done
        self._passed += done + skipped
        now = self._clock()
        if self._moves and now - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = now
            click.echo(f"\r{self._line(now)}\x1b[K", nl=False, err=True)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        click.echo(("\r\x1b[K" if self._moves else "") + self._line(self._clock()), err=True)

    def _line(self, now: float) -> str:
        rate = self.done / max(now - self._since, 0.001)
        # More can have died since they were counted.
        total = max(self._total, self._passed)
        return f"{self.done} of {total} {self._verb}, {rate:.0f} a second"
