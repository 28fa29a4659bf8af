"""How an attempt at an upstream ended, in the words that retries and breakers are configured in.

Pure. A failure of the gateway's own, such as a full pool, and what the client did have no word:
they say nothing about the upstream.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import (
    ATTEMPT_TIMEOUT,
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    DNS_FAILED,
    INVALID_RESPONSE,
    RESPONSE_HEADERS_TOO_LARGE,
    RESPONSE_INCOMPLETE,
    TLS_CERTIFICATE,
    TLS_FAILED,
    UPGRADE_FAILED,
    UPSTREAM_RESET,
    UPSTREAM_TIMEOUT,
    UPSTREAM_WRITE_TIMEOUT,
    UpstreamError,
)

_WORDS: Final = {
    CONNECT_FAILED.code: "connect",
    CONNECT_TIMEOUT.code: "connect",
    DNS_FAILED.code: "connect",
    TLS_FAILED.code: "tls",
    TLS_CERTIFICATE.code: "tls",
    UPSTREAM_RESET.code: "reset",
    RESPONSE_INCOMPLETE.code: "reset",
    ATTEMPT_TIMEOUT.code: "timeout",
    UPSTREAM_TIMEOUT.code: "timeout",
    UPSTREAM_WRITE_TIMEOUT.code: "timeout",
    INVALID_RESPONSE.code: "invalid",
    RESPONSE_HEADERS_TOO_LARGE.code: "invalid",
    UPGRADE_FAILED.code: "invalid",
}


def word_for(code: str) -> str:
    """The word for a code of the taxonomy; empty if it says nothing about the upstream."""
    return _WORDS.get(code, "")


def word_of(error: BaseException) -> str:
    """The word for a failure of the upstream; empty for anything else."""
    return _WORDS.get(error.kind.code, "") if isinstance(error, UpstreamError) else ""
