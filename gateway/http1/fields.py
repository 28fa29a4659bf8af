"""Names of header fields by who may write them. All in lower case, as bytes.

Only names stand here. What happens to the fields is decided in `upstream/headers.py` and
`forwarded.py`; what people may set is decided by `config/fields.py`.
"""

from __future__ import annotations

from typing import Final

# Their meaning ends at the next hop (RFC 9110 section 7.6.1), or they frame a message on it.
HOP_FIELDS: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What the gateway says about the client, in place of whatever came in.
FORWARDED_FIELDS: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
    }
)
# These pass from a trusted proxy and from nobody else: applications believe them like the others.
# The last two replace the path in some frameworks, so they would lead past the route.
PROXY_FIELDS: Final = frozenset(
    {
        b"true-client-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-forwarded-by",
        b"x-forwarded-path",
        b"x-forwarded-prefix",
        b"x-forwarded-protocol",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-forwarded-uri",
        b"x-real-ip",
        b"x-original-url",
        b"x-rewrite-url",
    }
)
