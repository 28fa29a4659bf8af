"""Field lines that leave, and those that must not."""

from __future__ import annotations

import pytest

from gateway.http1.lines import add_field_lines


def test_lines_are_appended() -> None:
    """In their order, behind what is there."""
    lines = [b"HTTP/1.1 200 OK"]
    assert add_field_lines(lines, [(b"a", b"1"), (b"b", b""), (b"a", b"\xff\t2")])
    assert lines == [b"HTTP/1.1 200 OK", b"a: 1", b"b: ", b"a: \xff\t2"]


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"\r\nx: y"])
def test_what_splits_a_message_is_found(bad: bytes) -> None:
    """RFC 9110 section 5.5; in a name, in a value, and in what stands before the fields."""
    assert not add_field_lines([], [(b"a", b"1" + bad)])
    assert not add_field_lines([], [(b"a" + bad, b"1")])
    assert not add_field_lines([b"GET /" + bad], [(b"a", b"1")])
