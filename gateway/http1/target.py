"""The request target's four forms, and what they make of the Host field (RFC 9112 section 3.2).

A gateway reads a target as an origin server does: origin-form, absolute-form, and `*` for OPTIONS.
Whether a path means one thing only (dot segments, escapes) is decided in `routing/path.py`.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.http1.head import MalformedMessage, RequestHead, check_host

_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?]*)(.*)")
_DEFAULT_PORT: Final = {b"http": b":80", b"https": b":443"}
_ORDINARY: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Long enough for every registered method (UPDATEREDIRECTREF has 17 letters).
_METHOD_BYTES: Final = 32


def settle_target(head: RequestHead, secure: bool) -> None:
    """Check method and target, and put the target into origin-form, or `*` for OPTIONS.

    `secure` says whether the request came over TLS. An absolute-form's authority takes the place of
    Host (RFC 9112 3.2.2). Raises MalformedMessage: 400 for a target that is none of the forms or an
    authority that differs from Host, 501 for the methods that are not served here.
    """
    if head.method not in _ORDINARY:
        _check_method(head.method)
    target = head.target
    if 0x23 in target:  # "#"; an int is looked up faster than a string
        raise MalformedMessage("the request target holds a fragment")
    if target[0] == 0x2F:
        return
    if target == b"*":
        if head.method != "OPTIONS":
            raise MalformedMessage("the target * belongs to OPTIONS alone")
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise MalformedMessage("the request target is not a path")
    _settle_absolute(head, absolute[1].lower(), absolute[2], absolute[3], secure)


def _check_method(method: str) -> None:
    if len(method) > _METHOD_BYTES:
        raise MalformedMessage("the method is not known", 501)
    # A tunnel and an echo of the caller's credentials are nothing that a gateway offers. Methods
    # are case-sensitive, but a sloppy upstream would read `trace` as TRACE.
    if method.upper() in {"CONNECT", "TRACE"}:
        raise MalformedMessage(f"{method.upper()} is not served here", 501)


def _settle_absolute(
    head: RequestHead, scheme: bytes, authority: bytes, rest: bytes, secure: bool
) -> None:
    if scheme not in _DEFAULT_PORT:
        raise MalformedMessage("the target's scheme is neither http nor https")
    if scheme == b"https" and not secure:
        # RFC 9110 section 7.4: an https resource is not served over a connection without TLS.
        raise MalformedMessage("an https target came over a connection without TLS")
    if not authority:
        raise MalformedMessage("the target's authority is empty")
    check_host(authority)
    host = head.index.get(b"host")
    if host is not None and _same_port(host, scheme) != _same_port(authority, scheme):
        raise MalformedMessage("the target's authority differs from Host")
    head.headers = [pair for pair in head.headers if pair[0] != b"host"]
    head.headers.insert(0, (b"host", authority))
    head.index[b"host"] = authority
    if rest and rest[0] == 0x2F:
        head.target = rest
    elif head.method == "OPTIONS" and not rest:
        head.target = b"*"  # RFC 9112 section 3.2.4
    else:
        head.target = b"/" + rest


def _same_port(authority: bytes, scheme: bytes) -> bytes:
    return authority.lower().removesuffix(_DEFAULT_PORT[scheme]).removesuffix(b":")
