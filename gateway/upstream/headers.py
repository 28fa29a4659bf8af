"""Which header fields pass, in both directions (RFC 9110 sections 5.6.1, 7.6 and 7.7).

Pure functions over pairs. What frames a body (Content-Length, Transfer-Encoding) belongs to a hop:
the connection writes it by what it really sends. Values that policies set are theirs; here stand
only the rules that hold for every route.
"""

from __future__ import annotations

from itertools import product
from typing import Final

from gateway.errors import INTERNAL_ERROR, LOOP_DETECTED, GatewayError
from gateway.forwarded import FORWARDING_FIELDS, forwarding_fields
from gateway.http1.head import ResponseHead, connection_tokens
from gateway.http1.lines import add_field_lines
from gateway.message import Headers, Request, Response

RawHeaders = list[tuple[bytes, bytes]]

# RFC 9110 section 7.6.1, and Proxy-*: their meaning ends at this hop.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Never from the client as it stands: this hop frames, expects and addresses by itself.
_OWN: Final = frozenset({b"content-length", b"expect", b"host", b"http2-settings"})
# What Connection may not take away: fields that say where a request goes or how its content is to
# be read, and those that policies wrote before the request came here. `Connection: X-Forwarded-For`
# and the like are an attack on whoever trusts these fields behind the gateway.
_UNREMOVABLE: Final = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-type",
        b"cookie",
        b"traceparent",
        b"tracestate",
        b"via",
    }
)
# Fields that policies write about a request, beside the forwarding fields. Most servers turn "-"
# and "_" into the same variable, so a client could otherwise send a second spelling of them.
_WRITTEN: Final = frozenset({b"x-correlation-id", b"x-request-id", b"x-user-id"})

# Framing, routing, credentials and the like may not come in a trailer (RFC 9110 section 6.5.1).
_NO_TRAILER: Final = (
    _HOP_BY_HOP
    | _OWN
    | {
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"date",
        b"expires",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"trailer",
        b"vary",
        b"warning",
        b"www-authenticate",
    }
)
_METHOD_STARTS: Final = {
    name: b"%b " % name.encode() for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
}
_BODY_EXPECTED: Final = frozenset({"PATCH", "POST", "PUT"})
_BESIDE_CONNECTION: Final = _HOP_BY_HOP - {b"connection"}
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close"})
_CONNECTION_TE: Final = (b"connection", b"TE")
_TE: Final = (b"te", b"trailers")


def _spellings(names: frozenset[bytes]) -> frozenset[bytes]:
    """Every way to write these names with "_" for some or all "-", the right ones left out."""
    found = set()
    for name in names:
        parts = name.split(b"-")
        for joins in product((b"-", b"_"), repeat=len(parts) - 1):
            found.add(parts[0] + b"".join(j + p for j, p in zip(joins, parts[1:], strict=True)))
    return frozenset(found) - names


class RequestFields:
    """Makes the upstream's fields out of the client's.

    `pseudonym` names this gateway in Via. `written` are the lower-case names of further fields that
    policies write and a client must not imitate or remove.
    """

    __slots__ = (
        "_dropped",
        "_dropped_beside_host",
        "_unremovable",
        "_via",
        "_via_old",
        "pseudonym",
    )

    def __init__(self, pseudonym: str, written: frozenset[bytes] = frozenset()) -> None:
        self.pseudonym = pseudonym.encode("ascii")
        self._via = (b"via", b"1.1 " + self.pseudonym)
        self._via_old = (b"via", b"1.0 " + self.pseudonym)
        names = _WRITTEN | written
        self._dropped = (
            _HOP_BY_HOP
            | _OWN
            | FORWARDING_FIELDS
            | _spellings(names | FORWARDING_FIELDS | _HOP_BY_HOP | _OWN)
        )
        self._dropped_beside_host = self._dropped - {b"host"}
        self._unremovable = _UNREMOVABLE | names

    def make(self, request: Request, host: str) -> RawHeaders:
        """The fields to send, all but those that frame the body; Host is the first, or absent.

        `host` is `preserve` for the client's Host field, `upstream` for the target's (absent here:
        the target is not chosen yet), anything else is sent as it stands. Raises
        GatewayError(LOOP_DETECTED) if this gateway stands in Via already.
        """
        headers = request.headers
        raw, index = headers.raw, headers.index
        if (
            host == "preserve"
            and raw
            and raw[0][0] == b"host"
            and b"connection" not in index
            and self._dropped_beside_host.isdisjoint(index)
        ):
            # The usual request: Host stands first, and nothing is to be dropped.
            fields = raw.copy()
        else:
            fields = self._chosen(headers, host)
        fields += forwarding_fields(request)
        if b"via" in index:
            self._refuse_loop(raw)
        fields.append(self._via if request.http_version == "1.1" else self._via_old)
        if b"te" in index and _wants_trailers(raw):
            fields.append(_TE)
            fields.append(_CONNECTION_TE)
        if request.method in ("OPTIONS", "TRACE") and b"max-forwards" in headers:
            _count_hop(fields)
        return fields

    def _chosen(self, headers: Headers, host: str) -> RawHeaders:
        """The client's fields that pass, behind the Host field that `host` asks for."""
        fields: RawHeaders = []
        if host == "preserve":
            own_host = headers.index.get(b"host")
            if own_host:
                fields.append((b"host", own_host))
        elif host != "upstream":
            fields.append((b"host", host.encode("ascii")))
        dropped = self._dropped
        if b"connection" in headers.index:
            dropped = self._dropped_with_connection(headers.raw)
        fields += [pair for pair in headers.raw if pair[0] not in dropped]
        return fields

    def _dropped_with_connection(self, raw: RawHeaders) -> frozenset[bytes]:
        named = connection_tokens(raw) - self._unremovable
        return self._dropped if named <= self._dropped else self._dropped | named

    def _refuse_loop(self, raw: RawHeaders) -> None:
        for name, value in raw:
            if name == b"via" and self.pseudonym in value:
                for member in value.split(b","):
                    if member.split()[1:2] == [self.pseudonym]:
                        raise GatewayError(LOOP_DETECTED, sent=False)


def _wants_trailers(raw: RawHeaders) -> bool:
    return any(
        member.strip(b" \t").lower() == b"trailers"
        for name, value in raw
        if name == b"te"
        for member in value.split(b",")
    )


def _count_hop(fields: RawHeaders) -> None:
    for index, (name, value) in enumerate(fields):
        # Zero never comes here, see last_hop; what is no number is not ours to mend.
        if name == b"max-forwards" and value.isdigit() and len(value) < 10:
            fields[index] = (name, b"%d" % max(0, int(value) - 1))


def last_hop(request: Request) -> Response | None:
    """The answer to an OPTIONS or TRACE that may go no further (RFC 9110 section 7.6.2), or None.

    TRACE is refused with 405 instead of being reflected: its answer would hold the credentials.
    """
    if request.method not in ("OPTIONS", "TRACE"):
        return None
    value = request.headers.get(b"max-forwards")
    if value is None or not value.isdigit() or value.strip(b"0"):
        return None
    if request.method == "OPTIONS":
        return Response(204, [])
    return Response(405, [(b"allow", b"OPTIONS"), (b"content-length", b"0")])


def encode_head(
    method: str, target: bytes, fields: RawHeaders, authority: bytes, framing: bytes
) -> bytes:
    """A request head on the wire. `authority` becomes Host if the fields don't begin with one.

    `framing` is whole field lines, CRLF included. Raises GatewayError(INTERNAL_ERROR) if a name,
    value or target holds a line end, which would make two requests of one, or NUL.
    """
    if not fields or fields[0][0] != b"host":
        fields = [(b"host", authority), *fields]
    start = _METHOD_STARTS.get(method) or b"%b " % method.encode("ascii")
    lines = [start + target + b" HTTP/1.1"]
    if not add_field_lines(lines, fields) or target.find(b" ") >= 0:
        detail = "a header field or the request target holds a line end or NUL"
        raise GatewayError(INTERNAL_ERROR, detail, sent=False)
    lines.append(framing)
    lines.append(b"")
    return b"\r\n".join(lines)


def framing_fields(method: str, body: bytes) -> bytes:
    """The Content-Length line for a body that is sent whole; none where no body is expected."""
    if body:
        return b"content-length: %d\r\n" % len(body)
    return b"content-length: 0\r\n" if method in _BODY_EXPECTED else b""


def declared_length(request: Request) -> int | None:
    """The size in bytes that the client declared for a body that streams, or None."""
    value = request.headers.get(b"content-length")
    return int(value) if value is not None and value.isdigit() else None


def streaming_fields(length: int | None) -> bytes:
    """The line that frames a body which is sent piece by piece."""
    if length is None:
        return b"transfer-encoding: chunked\r\n"
    return b"content-length: %d\r\n" % length


def response_headers(head: ResponseHead) -> RawHeaders:
    """The fields of an upstream's answer that pass to the client.

    Content-Length passes, once, because the server frames by it; not beside a 1xx or 204, where it
    has no place (RFC 9110 section 8.6).
    """
    raw = head.headers
    index = head.index
    connection = index.get(b"connection")
    if len(index) == len(raw) and head.status != 204 and head.status >= 200:
        # The usual answer: each field once, and at most a plain Connection to drop.
        if connection is None:
            if _HOP_BY_HOP.isdisjoint(index):
                return raw
        elif connection in _PLAIN_CONNECTION and _BESIDE_CONNECTION.isdisjoint(index):
            raw.remove((b"connection", connection))
            return raw
    dropped = _HOP_BY_HOP
    if connection is not None and connection not in (b"keep-alive", b"close"):
        dropped = dropped | (connection_tokens(raw) - _UNREMOVABLE - {b"content-length"})
    if b"content-length" in index and (head.status < 200 or head.status == 204):
        dropped = dropped | {b"content-length"}
    fields = [pair for pair in raw if pair[0] not in dropped]
    if len(index) != len(raw) and b"content-length" in index:
        length = (b"content-length", index[b"content-length"])
        if fields.count(length) > 1:
            fields = [pair for pair in fields if pair[0] != b"content-length"]
            fields.append(length)
    return fields


def response_trailers(raw: RawHeaders) -> RawHeaders:
    """The trailer fields that may pass (RFC 9110 section 6.5.1)."""
    return [pair for pair in raw if pair[0] not in _NO_TRAILER]


def peer_keep_alive(value: bytes, default: float) -> float:
    """Seconds to keep an idle connection, a little less than `Keep-Alive: timeout=N` promises."""
    for part in value.split(b","):
        name, _, number = part.strip(b" \t").partition(b"=")
        if name.strip().lower() == b"timeout":
            digits = number.strip().strip(b'"')
            if digits.isdigit() and len(digits) < 10:
                # A second for the way there and back; of a short promise, half.
                promised = float(digits)
                return min(default, max(promised - 1.0, promised / 2))
    return default
