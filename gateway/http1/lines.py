"""Field lines on their way out (RFC 9112 section 5)."""

from __future__ import annotations

from gateway.http1.head import RawHeaders


def add_field_lines(lines: list[bytes], fields: RawHeaders) -> bool:
    """Append a line for each field, and say whether all of `lines` can be sent.

    They can't with CR, LF or NUL in one of them (RFC 9110 section 5.5): the other side would read
    another message than this one, or two. Names are not looked at.
    """
    for name, value in fields:
        lines.append(name + b": " + value)
    # Looked for before they are joined: to count those of the whole head takes ten times as long.
    text = b"".join(lines)
    return text.find(b"\n") < 0 and text.find(b"\r") < 0 and text.find(b"\0") < 0
