"""The only upgrade served: WebSocket (RFC 6455), handed to uvicorn's own protocol class.

Every other Upgrade is ignored, which RFC 9110 section 7.8 allows: the request is served as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.http1.head import RequestHead

if TYPE_CHECKING:
    from uvicorn.config import Config

    from gateway.server.protocol import HttpProtocol


def is_websocket(head: RequestHead, config: Config) -> bool:
    """Whether this is a WebSocket opening handshake, and there is someone to take it."""
    return (
        head.upgrade is not None
        and head.upgrade.lower() == b"websocket"
        and head.method == "GET"
        and head.length == 0
        and head.minor == 1
        and config.ws_protocol_class is not None
    )


def hand_over(protocol: HttpProtocol, head: RequestHead, rest: bytes) -> None:
    """Give the connection to uvicorn's WebSocket protocol, beginning with the checked head.

    The head is written anew from what was parsed, so that its parser can't see another request.
    """
    shared = protocol.shared
    protocol_class: Any = shared.config.ws_protocol_class
    successor: Any = protocol_class(
        config=shared.config, server_state=shared.state, app_state=shared.app_state
    )
    fields = b"\r\n".join(map(b": ".join, head.headers))
    opening = b"GET %b HTTP/1.1\r\n%b\r\n\r\n" % (head.target, fields)
    successor.connection_made(protocol.transport)
    protocol.transport.set_protocol(successor)
    successor.data_received(opening + rest)
