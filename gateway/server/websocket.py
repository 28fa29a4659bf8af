"""uvicorn's WebSocket protocol, told when a handshake was refused.

uvicorn 0.54 takes a refusal with an HTTP answer for an application that forgot to answer, and logs
an error for each: a line that any client could have written as often as it likes.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.server.peer import client_certificate


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection, from its handshake on."""

    async def run_asgi(self) -> None:
        # What the ASGI scope has no standard place for, in the form in which requests carry it.
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions["lockgate.certificate"] = client_certificate(self.transport)
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True
