"""The one taxonomy of errors, and the one function that turns an error into an answer.

A code says what failed, whose fault it was, whether trying again can help, and which status it
gets. The same word is the `code` of the problem body, the metric's label and the log's field.
Expected refusals are values (`Rejection`); failures are exceptions (`GatewayError`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

RawHeaders = list[tuple[bytes, bytes]]


class Source(StrEnum):
    """Whose fault an error is."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One line of the taxonomy. `proxy_error` is its RFC 9209 error type, if it has one."""

    code: str
    status: int
    source: Source
    transient: bool
    title: str
    proxy_error: str | None = None


CODES: Final[dict[str, ErrorCode]] = {}


def _code(
    code: str, status: int, source: Source, transient: bool, title: str, proxy: str | None = None
) -> ErrorCode:
    kind = ErrorCode(code, status, source, transient, title, proxy)
    CODES[code] = kind
    return kind


_C, _G, _U, _S = Source.CLIENT, Source.GATEWAY, Source.UPSTREAM, Source.STORE

# fmt: off
MALFORMED_REQUEST = _code("malformed_request", 400, _C, False, "The request is malformed", "http_request_error")
AMBIGUOUS_PATH = _code("ambiguous_path", 400, _C, False, "The path can be read in two ways", "http_request_error")
INVALID_REQUEST = _code("invalid_request", 400, _C, False, "The request does not meet its contract", "http_request_error")
IDEMPOTENCY_KEY_MISSING = _code("idempotency_key_missing", 400, _C, False, "An idempotency key is required", "http_request_error")
IDEMPOTENCY_KEY_INVALID = _code("idempotency_key_invalid", 400, _C, False, "The idempotency key can't be used", "http_request_error")
MISSING_CREDENTIALS = _code("missing_credentials", 401, _C, False, "Credentials are required", "http_request_denied")
INVALID_CREDENTIALS = _code("invalid_credentials", 401, _C, False, "The credentials are not accepted", "http_request_denied")
ACCESS_DENIED = _code("access_denied", 403, _C, False, "This address may not call this route", "http_request_denied")
ORIGIN_DENIED = _code("origin_denied", 403, _C, False, "This origin may not call this route", "http_request_denied")
INSUFFICIENT_SCOPE = _code("insufficient_scope", 403, _C, False, "The credentials lack a scope", "http_request_denied")
NOT_PERMITTED = _code("not_permitted", 403, _C, False, "The caller may not do this", "http_request_denied")
ROUTE_NOT_FOUND = _code("route_not_found", 404, _C, False, "No route matches this request", "destination_not_found")
OPERATION_NOT_FOUND = _code("operation_not_found", 404, _C, False, "The contract has no such operation", "http_request_denied")
METHOD_NOT_ALLOWED = _code("method_not_allowed", 405, _C, False, "The route does not take this method", "http_request_denied")
REQUEST_TIMEOUT = _code("request_timeout", 408, _C, True, "The request arrived too slowly", "http_request_error")
IDEMPOTENCY_CONFLICT = _code("idempotency_conflict", 409, _C, True, "A request with this idempotency key is under way or can't be answered again", "http_request_denied")
WEBHOOK_REPLAYED = _code("webhook_replayed", 409, _C, False, "This webhook was received before", "http_request_denied")
BODY_TOO_LARGE = _code("body_too_large", 413, _C, False, "The request body is too large", "http_request_error")
TARGET_TOO_LONG = _code("target_too_long", 414, _C, False, "The request target is too long", "http_request_error")
UNSUPPORTED_MEDIA_TYPE = _code("unsupported_media_type", 415, _C, False, "The body's media type is not taken here", "http_request_error")
EXPECTATION_FAILED = _code("expectation_failed", 417, _C, False, "The expectation can't be met", "http_request_error")
INVALID_BODY = _code("invalid_body", 422, _C, False, "The body does not meet its contract", "http_request_error")
IDEMPOTENCY_KEY_REUSED = _code("idempotency_key_reused", 422, _C, False, "The idempotency key belongs to another request", "http_request_denied")
UPGRADE_REFUSED = _code("upgrade_refused", 426, _C, False, "This route does not take that upgrade", "http_request_denied")
RATE_LIMITED = _code("rate_limited", 429, _C, True, "Too many requests", "http_request_denied")
QUOTA_EXCEEDED = _code("quota_exceeded", 429, _C, True, "The quota is used up", "http_request_denied")
HEADERS_TOO_LARGE = _code("headers_too_large", 431, _C, False, "The request header is too large", "http_request_error")
CLIENT_DISCONNECTED = _code("client_disconnected", 499, _C, True, "The client left before the answer")
INTERNAL_ERROR = _code("internal_error", 500, _G, True, "The gateway failed", "proxy_internal_error")
NOT_IMPLEMENTED = _code("not_implemented", 501, _C, False, "The gateway does not do this", "http_request_error")
LOOP_DETECTED = _code("loop_detected", 502, _G, False, "The request came back to this gateway", "proxy_loop_detected")
DNS_FAILED = _code("dns_failed", 502, _U, True, "The upstream's name can't be resolved", "dns_error")
CONNECT_FAILED = _code("connect_failed", 502, _U, True, "The upstream refused the connection", "connection_refused")
TLS_FAILED = _code("tls_failed", 502, _U, False, "TLS with the upstream failed", "tls_protocol_error")
TLS_CERTIFICATE = _code("tls_certificate", 502, _U, False, "The upstream's certificate is not accepted", "tls_certificate_error")
UPSTREAM_RESET = _code("upstream_reset", 502, _U, True, "The upstream closed the connection without an answer", "connection_terminated")
INVALID_RESPONSE = _code("invalid_response", 502, _U, False, "The upstream's answer is not valid HTTP", "http_protocol_error")
RESPONSE_INCOMPLETE = _code("response_incomplete", 502, _U, True, "The upstream's answer broke off", "http_response_incomplete")
RESPONSE_HEADERS_TOO_LARGE = _code("response_headers_too_large", 502, _U, False, "The upstream's header is too large", "http_response_header_section_size")
UPGRADE_FAILED = _code("upgrade_failed", 502, _U, False, "The upstream refused the upgrade", "http_upgrade_failed")
RESPONSE_CONTRACT = _code("response_contract_violated", 502, _U, False, "The upstream's answer does not meet its contract", "http_protocol_error")
FAULT_INJECTED = _code("fault_injected", 503, _G, True, "A failure was made on purpose")
CONNECTION_LIMIT = _code("connection_limit", 503, _G, True, "All connections to the upstream are in use", "connection_limit_reached")
CIRCUIT_OPEN = _code("circuit_open", 503, _U, True, "The upstream failed too often and is given a rest", "destination_unavailable")
NO_HEALTHY_TARGET = _code("no_healthy_target", 503, _U, True, "No target of the upstream is healthy", "destination_unavailable")
BULKHEAD_FULL = _code("bulkhead_full", 503, _G, True, "Too many requests are at the upstream already", "connection_limit_reached")
DRAINING = _code("draining", 503, _G, True, "The gateway is shutting down", "proxy_internal_response")
IDENTITY_UNAVAILABLE = _code("identity_unavailable", 503, _U, True, "Credentials can't be checked now", "proxy_internal_response")
UPSTREAM_CREDENTIALS = _code("upstream_credentials_unavailable", 503, _G, True, "The gateway has no credentials for the upstream", "proxy_internal_response")
STORE_UNAVAILABLE = _code("store_unavailable", 503, _S, True, "The store can't be reached", "proxy_internal_response")
ATTEMPT_TIMEOUT = _code("attempt_timeout", 504, _U, True, "The upstream did not answer an attempt in time", "http_response_timeout")
CONNECT_TIMEOUT = _code("connect_timeout", 504, _U, True, "The upstream did not accept the connection in time", "connection_timeout")
UPSTREAM_TIMEOUT = _code("upstream_timeout", 504, _U, True, "The upstream stopped sending", "connection_read_timeout")
UPSTREAM_WRITE_TIMEOUT = _code("upstream_write_timeout", 504, _U, True, "The upstream stopped reading", "connection_write_timeout")
DEADLINE_EXCEEDED = _code("deadline_exceeded", 504, _U, True, "The upstream did not answer in time", "http_response_timeout")
ONLY_IF_CACHED = _code("not_cached", 504, _C, True, "Nothing usable is stored, and only that was asked for")
HTTP_VERSION = _code("http_version", 505, _C, False, "This HTTP version is not spoken here", "http_request_error")
STORE_FULL = _code("store_full", 507, _S, True, "The store has no room", "proxy_internal_response")
# fmt: on


@dataclass(frozen=True, slots=True)
class Rejection:
    """An expected refusal: what a guard returns instead of None.

    `detail` is read by the caller's developer: it names what was wrong, never a secret. `headers`
    go on the answer (lower-case names); `extensions` become members of the problem.
    """

    kind: ErrorCode
    detail: str = ""
    headers: RawHeaders = field(default_factory=list)
    extensions: Mapping[str, object] = field(default_factory=dict)


class GatewayError(Exception):
    """A failure with its place in the taxonomy. Subclasses say who raises it.

    `next_hop` names the target that failed, for Proxy-Status. `sent` is False only if it is proved
    that no byte of the request reached the upstream, so that a retry is safe for every method.
    """

    def __init__(
        self,
        kind: ErrorCode,
        detail: str = "",
        *,
        next_hop: str = "",
        sent: bool = True,
        headers: RawHeaders | None = None,
    ) -> None:
        super().__init__(f"{kind.code}: {detail or kind.title}")
        self.kind = kind
        self.detail = detail
        self.next_hop = next_hop
        self.sent = sent
        self.headers = headers or []


class ClientError(GatewayError):
    """The client broke off, broke the protocol, or sent too much."""


class UpstreamError(GatewayError):
    """The upstream could not be reached, or did not answer as HTTP asks."""


class StoreError(GatewayError):
    """The store could not be reached, or did not answer in time."""


class Refused(GatewayError):
    """A Rejection raised by an Around, which has no other way to refuse."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.kind, rejection.detail, headers=rejection.headers)
        self.rejection = rejection


class ConfigError(Exception):
    """The configuration can't be used. `path` is the key's path, such as `routes[2].cors`.

    Whoever catches the error of a part puts its own path in front, unless the path is `whole`: it
    leads to another section, which the part was made of as well.
    """

    def __init__(self, message: str, path: str = "", *, whole: bool = False) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.message = message
        self.path = path
        self.whole = whole


def problem(
    failure: Rejection | GatewayError, correlation_id: str, pseudonym: str = "lockgate"
) -> tuple[int, RawHeaders, bytes]:
    """The answer for a failure: status, header fields, and an RFC 9457 problem as the body.

    Upstream and gateway failures also get a Proxy-Status field (RFC 9209).
    """
    kind = failure.kind
    body: dict[str, object] = {
        "type": f"urn:lockgate:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "source": kind.source.value,
        "transient": kind.transient,
    }
    if failure.detail:
        body["detail"] = failure.detail
    if correlation_id:
        body["correlation_id"] = correlation_id
    if isinstance(failure, Refused):
        failure = failure.rejection
    if isinstance(failure, Rejection):
        for name, value in failure.extensions.items():
            body.setdefault(name, value)
    payload = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    headers: RawHeaders = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(payload)),
        (b"cache-control", b"no-store"),
    ]
    if kind.proxy_error is not None:
        next_hop = failure.next_hop if isinstance(failure, GatewayError) else ""
        headers.append((b"proxy-status", proxy_status(kind, next_hop, pseudonym)))
    headers.extend(failure.headers)
    return kind.status, headers, payload


def proxy_status(kind: ErrorCode, next_hop: str, pseudonym: str) -> bytes:
    """The member that this gateway adds to Proxy-Status (RFC 9209 section 2)."""
    member = f"{pseudonym}; error={kind.proxy_error}"
    if next_hop:
        # sf-string: visible ASCII, with backslash and quote escaped (RFC 8941 section 3.3.3).
        text = "".join(char for char in next_hop if " " <= char <= "~")
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        member += f'; next-hop="{text}"'
    return member.encode("ascii", "replace")
