"""Where the process log goes: a logging handler that drops lines rather than block the event loop.

Owns only the way out. What a line looks like, and which loggers write, is the server's business;
code logs with the standard library: `logger.info("what happened", extra={"upstream": name})`.
"""

from __future__ import annotations

import logging

from gateway.observability.sink import Writer


class LineHandler(logging.Handler):
    """Writes each record as one line. While the reader is stuck lines are lost, and when it goes on
    a line says how many.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer
        self._rest = b""  # of a line that went out in part
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging with the handler's lock held, from any thread."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001 - a bad format string must not reach the code that logs
            self.handleError(record)
            return
        if not self._flush():
            self.dropped += 1
            return
        lost, self.dropped = self.dropped, 0
        if lost:
            line = self.format(_note(lost)).encode() + b"\n" + line
        self._rest = line
        if not self._flush() and len(self._rest) == len(line):
            self._rest = b""  # not a byte went out, so it is dropped whole
            self.dropped = lost + 1

    def _flush(self) -> bool:
        while self._rest:
            try:
                written = self._writer.write(self._rest[: self._writer.chunk])
            except OSError:
                return False
            self._rest = self._rest[written:]
        return True

    def close(self) -> None:
        """Let go of the writer; what is logged later is lost."""
        self._writer.close(0.2)
        super().close()


def _note(lost: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "gateway.log",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "log lines were lost because their reader was too slow",
            "lines": lost,
        }
    )
