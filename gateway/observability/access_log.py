"""The access log: one JSON object a line for every exchange, redacted, never in the way.

Owns what a line says. How lines reach the descriptor is `sink.py`; what is a secret is
`redact.py`. Fields that have nothing to say are left out. Times are in milliseconds with three
decimals, sizes in bytes of body. A line is written within milliseconds of its exchange's end.

Sampling leaves out only what went well: an exchange with an error code or a status of 500 and
above is always logged.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.clock import Clock
from gateway.errors import ConfigError
from gateway.message import Exchange
from gateway.observability.line import Line
from gateway.observability.metrics import Metrics
from gateway.observability.redact import MASK, QueryRedactor, ascii_json
from gateway.observability.sink import LineSink, open_path, writer_for

if TYPE_CHECKING:
    from gateway.config.model import AccessLogConfig, RedactConfig

CLOSE_TIMEOUT_S: Final = 1.0
# Lines wait this long for others, or until there are so many: writing is a system call, and wakes
# whoever reads or watches the file.
_PAUSE_S: Final = 0.005
_MOST_LINES: Final = 256
_STANDARD: Final = {"stdout": 1, "stderr": 2}
_LOGGED_HEADERS: Final = frozenset({"host", "user-agent"})


class AccessLog:
    """Writes a line for every exchange it is given. One for a process, across reloads.

    A path is taken from the working directory if it is relative, and opened anew by `reopen` after
    a rotation. Raises ConfigError if it can't be opened.
    """

    def __init__(
        self,
        config: AccessLogConfig,
        redact: RedactConfig,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._path = Path(config.to) if config.to not in _STANDARD else None
        self._metrics = metrics
        self._wall = clock.wall
        self._random = random
        self._sample = config.sample
        self._query = QueryRedactor(redact.query)
        self._hides = _LOGGED_HEADERS & {name.lower() for name in redact.headers}
        self._encode: Callable[[list[Line]], bytes] = msgspec.json.Encoder().encode_lines
        self._tick = self._second = -1
        self._date = ""
        self._stamp = ""
        self._lines: list[Line] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            writer = open_path(self._path) if self._path else writer_for(_STANDARD[config.to])
        except OSError as error:
            message = f"can't write to {config.to}: {error.strerror or error}"
            raise ConfigError(message, "telemetry.access_log.to") from error
        self._sink = LineSink(writer, self._dropped)

    def _dropped(self, lines: int) -> None:
        self._metrics.access_log_dropped += lines

    def write(self, exchange: Exchange, seconds: float) -> None:
        """Log an exchange that took `seconds`, if the sample takes it."""
        error = exchange.error
        status = exchange.response_status
        if self._sample < 1.0 and error is None and status < 500 and self._random() >= self._sample:
            return
        tick = int(self._wall() * 1000)
        if tick != self._tick:
            self._tick = tick
            self._stamp = self._timestamp(tick)
        request = exchange.request
        query = request.query
        agent = request.headers.get(b"user-agent")
        trace = exchange.trace
        principal = exchange.principal
        busy = exchange.upstream_seconds
        line = Line(
            self._stamp,
            request.method,
            request.path,
            status,
            int(seconds * 1e6) / 1000,
            int((seconds - busy) * 1e6) / 1000,
            exchange.bytes_in,
            exchange.bytes_out,
            exchange.generation,
            request.http_version,
            exchange.route,
            self._query(query) if query else "",
            request.host,
            request.client,
            principal.consumer if principal is not None else "",
            agent.decode("ascii", "backslashreplace") if agent is not None else "",
            exchange.correlation_id,
            trace.trace_id if trace is not None else "",
            exchange.upstream,
            exchange.target,
            exchange.upstream_status,
            int(busy * 1e6) / 1000 if exchange.upstream else None,
        )
        if error is not None:
            line.code = error.code
            line.source = error.source.value
            line.transient = error.transient
            line.detail = exchange.error_detail
        if exchange.reported is not None:
            line.reported = exchange.reported
        if exchange.cache:
            line.cache = exchange.cache
        if exchange.attempts > 1:
            line.attempts = exchange.attempts
        if exchange.side:
            line.side = exchange.side
        if self._hides:
            self._hide(line)
        self._keep(line)

    def _keep(self, line: Line) -> None:
        lines = self._lines
        lines.append(line)
        if len(lines) == _MOST_LINES:
            self._flush()
        elif len(lines) == 1:
            loop = self._loop
            if loop is None:
                # Asked for once: until Python 3.12 each asking is a system call, getpid.
                loop = self._loop = asyncio.get_running_loop()
            loop.call_later(_PAUSE_S, self._flush)

    def _timestamp(self, tick: int) -> str:
        """RFC 3339 in UTC with milliseconds, from milliseconds of the Unix epoch."""
        second = tick // 1000
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._date}.{tick - second * 1000:03d}Z"

    def _flush(self) -> None:
        """Write the lines that wait, encoded together."""
        lines = self._lines
        if not lines:
            return
        self._lines = []
        try:
            block = self._encode(lines)
        except UnicodeEncodeError:
            block = self._encode([_without_surrogates(line) for line in lines])
        if not block.isascii() or 0x7F in block:
            block = b"".join(ascii_json(line) + b"\n" for line in block.split(b"\n")[:-1])
        self._sink.write(block)

    def _hide(self, line: Line) -> None:
        if "user-agent" in self._hides and line.user_agent:
            line.user_agent = MASK
        if "host" in self._hides and line.host:
            line.host = MASK

    def reopen(self) -> None:
        """Open the file anew, if the log goes to a file. Raises OSError; then the old one stays."""
        if self._path is not None:
            writer = open_path(self._path)
            self._flush()
            self._sink.replace(writer)

    async def aclose(self) -> None:
        """Write what waits, at most a second long, and let go. Calling it twice is fine."""
        self._flush()
        await self._sink.aclose(CLOSE_TIMEOUT_S)


def _without_surrogates(line: Line) -> Line:
    r"""Bytes that were no UTF-8 when a server decoded them, shown as `\udcNN`."""
    for name in Line.__struct_fields__:
        value = getattr(line, name)
        if isinstance(value, str):
            setattr(line, name, value.encode("utf-8", "backslashreplace").decode())
    if line.reported is not None:
        line.reported = [
            each.encode("utf-8", "backslashreplace").decode() for each in line.reported
        ]
    return line
