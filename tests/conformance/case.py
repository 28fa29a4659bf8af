"""What a conformance case is: bytes that go in, and what must come out. Data alone."""

from __future__ import annotations

from dataclasses import dataclass, field

OK = 200
# Refused, whatever the exact reason: for what is malformed in more than one way.
BAD = 400


@dataclass(frozen=True)
class Case:
    """One exchange of raw bytes with a server.

    `section` names the rule (RFC and section). `send` is written in order, one write each, with the
    bytes of the answers left unread in between. `statuses` are the final answers, in order; an
    empty tuple means that the connection ends without one. `closes` says whether the server must
    end the connection then; if not, it must still serve a further request. `reached` are the
    targets that must have arrived at the application, whole; nothing else may. `methods` are the
    methods that the answers belong to, where one is not GET-like (HEAD has no body).
    """

    name: str
    section: str
    send: tuple[bytes, ...]
    statuses: tuple[int, ...]
    closes: bool = False
    reached: tuple[bytes, ...] = ()
    methods: tuple[str, ...] = ()
    bodies: tuple[bytes, ...] = ()
    received: dict[bytes, bytes | None] = field(default_factory=dict)
    answered: dict[bytes, bytes | None] = field(default_factory=dict)
    body_received: bytes | None = None


def accepted(name: str, section: str, *send: bytes, target: bytes = b"/", **more: object) -> Case:
    """A case whose one request is served."""
    return Case(name, section, send, (200,), reached=(target,), **more)  # type: ignore[arg-type]


def refused(name: str, section: str, *send: bytes, status: int = 400, **more: object) -> Case:
    """A case whose first request is refused: an error, an end, and nothing gets through."""
    return Case(name, section, send, (status,), closes=True, **more)  # type: ignore[arg-type]


def get(target: bytes = b"/", *fields: bytes, host: bytes = b"Host: a") -> bytes:
    """A GET with the given field lines."""
    return request(b"GET", target, *fields, host=host)


def request(
    method: bytes, target: bytes, *fields: bytes, host: bytes = b"Host: a", body: bytes = b""
) -> bytes:
    """A request with the given field lines, and body bytes as they are."""
    lines = [b"%b %b HTTP/1.1" % (method, target), *([host] if host else []), *fields, b"", body]
    return b"\r\n".join(lines)


def chunked(body: bytes, *fields: bytes, target: bytes = b"/") -> bytes:
    """A POST whose body is sent as it is, under Transfer-Encoding: chunked."""
    return request(b"POST", target, b"Transfer-Encoding: chunked", *fields, body=body)
