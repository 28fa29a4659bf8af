"""The process log never holds anybody up."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator

import pytest

from gateway.observability.log import LineHandler
from gateway.observability.sink import PIPE_BUF, writer_for


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BUF)
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def logger(pipe: tuple[int, int]) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.log")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = LineHandler(writer_for(pipe[1]))
    logger.handlers = [handler]
    yield logger
    handler.close()
    logger.handlers = []


def test_each_record_is_a_line(pipe: tuple[int, int], logger: logging.Logger) -> None:
    """Records arrive at once and in order, whatever characters are in them."""
    logger.info("one %d", 1)
    handler = logger.handlers[0]
    # Straight to the handler: what collects log records for test reports chokes on such text.
    handler.handle(logging.LogRecord("x", logging.WARNING, "", 0, "two \ud800", None, None))
    assert os.read(pipe[0], 4096) == b"one 1\ntwo \\ud800\n"


def test_a_stuck_reader_loses_lines_and_is_told(
    pipe: tuple[int, int], logger: logging.Logger
) -> None:
    """Logging returns at once; when the reader goes on, the next lines say that some were lost."""
    for _ in range(500):
        logger.info("x" * 99)
    kept = os.read(pipe[0], 65536)
    assert kept == (b"x" * 99 + b"\n") * (len(kept) // 100)
    logger.info("after")
    note, after = os.read(pipe[0], 65536).splitlines()
    assert note.startswith(b"log lines were lost")
    assert after == b"after"
    logger.info("again")
    assert os.read(pipe[0], 65536) == b"again\n"


def test_a_line_larger_than_the_pipe_stays_one_line(
    pipe: tuple[int, int], logger: logging.Logger
) -> None:
    """Its rest goes out before the next line."""
    logger.info("y" * 6000)
    first = os.read(pipe[0], 65536)
    logger.info("next")
    assert first + os.read(pipe[0], 65536) == b"y" * 6000 + b"\nnext\n"


def test_a_reader_that_left_is_no_error(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    """Writing to a closed pipe raises nothing and prints nothing."""
    reader, writer = os.pipe()
    handler = LineHandler(writer_for(writer))
    os.close(reader)
    logger.handlers = [handler]
    logger.error("nobody reads this")
    assert handler.dropped == 1
    handler.close()
    os.close(writer)
    assert capfd.readouterr().err == ""
