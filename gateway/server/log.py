"""The process log: one JSON object a line on stderr, or plain text where a person reads along.

What happened to exchanges is the access log's; this is what happens to the process.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from gateway.observability.log import LineHandler
from gateway.observability.sink import writer_for

# What a LogRecord always has; everything else was given as `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_FOREIGN: Final = ("uvicorn", "websockets", "asyncio", "watchfiles")


class JsonFormatter(logging.Formatter):
    """One line of JSON: time, level, logger, message, and the record's extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        line.update(_extra(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """A line for people: the message first, the extra fields behind it."""

    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f" {name}={value}" for name, value in _extra(record).items())
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        # A line feed in a message must not look like another line of the log.
        message = record.getMessage().replace("\n", "\\n")
        text = f"{at} {record.levelname.lower():7} {message}{extra}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure_logging(level: str) -> None:
    """Send every logger of this process to stderr, at `level`; libraries at `warning` or above."""
    handler = _handler()
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=threshold, handlers=[handler], force=True)
    for name in _FOREIGN:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def _handler() -> logging.Handler:
    if sys.stderr.isatty():
        return logging.StreamHandler(sys.stderr)
    try:
        # A reader that is stuck must cost log lines, not the event loop.
        return LineHandler(writer_for(sys.stderr.fileno()))
    except OSError:  # stderr is closed, or no file
        return logging.StreamHandler(sys.stderr)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}
