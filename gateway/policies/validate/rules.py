"""What a request or an answer breaks, and which refusal that is. Pure: bytes in, verdicts out."""

from __future__ import annotations

from typing import Final

from gateway.contracts import media
from gateway.contracts.media import MediaTable, MediaType
from gateway.contracts.operation import (
    Body,
    Content,
    Operation,
    Unreadable,
    check_content,
    unpack,
)
from gateway.contracts.parameters import Parts, check_all, cookie_pairs
from gateway.contracts.styles import Undecodable, query_pairs
from gateway.contracts.violations import Violation, summary
from gateway.errors import (
    INVALID_BODY,
    INVALID_REQUEST,
    MALFORMED_REQUEST,
    UNSUPPORTED_MEDIA_TYPE,
    Rejection,
)
from gateway.message import RawHeaders, Request

_IDENTITY: Final = (b"accept-encoding", b"identity")
_MAX_SHOWN: Final = 5


def media_type(request: Request, body: Body) -> tuple[MediaType, Content] | Rejection | None:
    """How a request's body is to be read; None if it does not say, a refusal if it can't be."""
    fields = request.headers
    encoding = fields.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        detail = "the body is checked here, and can't be while it is compressed"
        return Rejection(UNSUPPORTED_MEDIA_TYPE, detail, [_IDENTITY])
    stated = fields.get(b"content-type")
    if stated is None:
        return None
    if len(fields.raw) != len(fields.index) and len(set(fields.get_all(b"content-type"))) > 1:
        return Rejection(MALFORMED_REQUEST, "there is more than one Content-Type")
    found = body.content.find(stated.decode("latin-1"))
    if found is None or (found[0].kind != media.OTHER and not found[0].is_utf8):
        return unsupported(body)
    return found


def unsupported(body: Body) -> Rejection:
    """The refusal of a body of a type that is not taken."""
    names = ", ".join(body.content.names)
    headers: RawHeaders = [(b"accept", names.encode("latin-1", "replace"))] if names else []
    return Rejection(UNSUPPORTED_MEDIA_TYPE, f"this takes {names}", headers)


def parameter_violations(
    operation: Operation, request: Request, path: dict[str, str]
) -> list[Violation]:
    """What is wrong with query, path, header fields and cookies."""
    if not operation.parameters:
        return []
    try:
        query = query_pairs(request.query) if request.query else []
    except Undecodable as error:
        return [Violation("query", "", f"a parameter's name {error.reason}", "style")]
    fields = request.headers
    cookies = cookie_pairs(fields.get_all(b"cookie")) if operation.uses_cookies else []
    return check_all(operation.parameters, Parts(query, path, fields.get_all, cookies))


def body_violations(
    body: Body, found: tuple[MediaType, Content] | None, data: bytes
) -> tuple[list[Violation], bool]:
    """What is wrong with a body, and whether it could be read at all."""
    if not data:
        if not body.required:
            return [], True
        return [Violation("body", "", "the body is missing", "required")], False
    assert found is not None
    kind, content = found
    try:
        return check_content(content, kind, data), True
    except Unreadable as error:
        return [Violation("body", "", error.reason, kind.kind)], False


def refusal(parameters: list[Violation], body: list[Violation], *, readable: bool) -> Rejection:
    """The refusal of a request: 422 if all that is wrong is what a well-formed body says."""
    violations = parameters + body
    kind = INVALID_REQUEST if parameters or not readable else INVALID_BODY
    count = len(violations)
    detail = "1 violation" if count == 1 else f"{count} violations"
    return Rejection(kind, detail, extensions=summary(violations))


def response_violations(
    table: MediaTable[Content], found: tuple[MediaType, Content] | None, encoding: str,
    data: bytes, limit: int,
) -> list[Violation]:  # fmt: skip
    """What is wrong with an answer's body."""
    if found is None:
        return [Violation("body", "", f"is not {' or '.join(table.names)}", "content")]
    plain = unpack(data, encoding, limit)
    if plain is None:
        # Compressed in a way that is not read here, or too large once it is not.
        return []
    try:
        return check_content(found[1], found[0], plain)
    except Unreadable as error:
        return [Violation("body", "", error.reason, found[0].kind)]


def describe(violations: list[Violation]) -> str:
    """The first violations in a line of a log: places and keywords, no values."""
    shown = [f"{each.pointer or '/'} ({each.keyword})" for each in violations[:_MAX_SHOWN]]
    more = len(violations) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
