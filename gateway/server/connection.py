"""The life of one client connection, whatever is spoken on it: its timer, its closing, its ends.

One timer a connection, re-armed only when it fires: what happens in between moves `_expires`, a
number. Closing is never left to the client's good will.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import CLIENT_DISCONNECTED, ErrorCode
from gateway.server import peer

if TYPE_CHECKING:
    from gateway.certificate import ClientCertificate
    from gateway.server.cycle import Cycle
    from gateway.server.factory import HttpFactory

NEVER: Final = float("inf")
# HEAD: between requests, or a head is arriving. BODY: a body is arriving, its request under way.
# BUSY: the request is here whole, its answer under way. DRAIN: the answer is out, and a short rest
# of the body is thrown away. LINGER: we have ended, and wait for the client to end. CLOSED: closed,
# though the transport may still be sending.
HEAD: Final = 0
BODY: Final = 1
BUSY: Final = 2
DRAIN: Final = 3
LINGER: Final = 4
CLOSED: Final = 5

_LINGER_BYTES: Final = 1024 * 1024
_LINGER_SECONDS: Final = 2.0
# Timers of the event loop are rounded to a millisecond, and may come that much early.
_TIMER_SLACK: Final = 0.002
_RESET: Final = struct.pack("ii", 1, 0)
# An answer up to this size waits for the others of its turn, and can't fill the transport's buffer.
_SOON: Final = 32 * 1024


class Connection:
    """Base of HttpProtocol: everything that does not depend on how a message is read."""

    __slots__ = ("_amount", "_answer", "_cycle", "_expires", "_paused_at", "_phase", "_timer",
                 "_timer_at", "certificate", "client", "peer", "port", "secure", "server",
                 "shared", "tls", "transport", "write_paused")  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, shared: HttpFactory) -> None:
        self.shared = shared
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int | None] | None = None
        # The peer's address and our own port, "" and 0 where there are none.
        self.peer = ""
        self.port = 0
        self.secure = False
        self.tls: dict[str, Any] | None = None
        self.certificate: ClientCertificate | None = None
        self.write_paused = False
        self._phase = HEAD
        self._cycle: Cycle | None = None
        # An answer that is yet to be written.
        self._answer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._expires = NEVER
        # When reading was paused; 0.0 while it is not.
        self._paused_at = 0.0
        # Bytes thrown away in DRAIN and LINGER; bytes unsent when a stall was last looked at.
        self._amount = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        shared = self.shared
        self.transport = transport  # type: ignore[assignment]
        self.client, self.server = peer.addresses(self.transport)
        if self.client is not None:
            self.peer = self.client[0]
        if self.server is not None:
            self.port = self.server[1] or 0
        if transport.get_extra_info("sslcontext") is not None:
            self.secure = True
            self.tls = peer.tls_details(self.transport)
            self.certificate = peer.client_certificate(self.transport)
        shared.state.connections.add(self)  # type: ignore[arg-type]
        self._expire_in(shared.settings.headers_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self._retire()
        self._answer = b""
        self._leave(CLIENT_DISCONNECTED)

    def _retire(self) -> None:
        self.shared.state.connections.discard(self)
        self._phase = CLOSED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def eof_received(self) -> bool:
        """The client sends no more. That is how one that has left looks, so it is taken as such."""
        self.flush()
        self._leave(CLIENT_DISCONNECTED)
        return False

    def _leave(self, failure: ErrorCode) -> None:
        """The exchange under way is over without its answer."""
        cycle, self._cycle = self._cycle, None
        if cycle is not None:
            self.shared.in_flight -= 1
            cycle.disconnect(failure)

    def report(self, kind: ErrorCode, detail: str) -> None:
        """Tell whoever keeps the books about a request that was refused here."""
        self.shared.settings.on_refused(kind, detail, self.client[0] if self.client else "")

    # The timer.

    def _expire_in(self, seconds: float) -> None:
        self._expire_at(self.shared.loop.time() + seconds)

    def _expire_at(self, when: float) -> None:
        self._expires = when
        if self._timer is None:
            self._arm(when)
        elif when < self._timer_at - _TIMER_SLACK:
            self._timer.cancel()
            self._arm(when)

    def _arm(self, when: float) -> None:
        self._timer_at = when
        self._timer = self.shared.loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._expires == NEVER:
            return  # the next deadline arms it again
        if self.shared.loop.time() + _TIMER_SLACK < self._expires:
            self._arm(self._expires)
        else:
            self._expires = NEVER
            self.expired()

    def expired(self) -> None:
        """The current deadline has passed."""
        raise NotImplementedError

    # Flow of bytes.

    def send_soon(self, answer: bytes) -> None:
        """Write a whole answer, if it is small together with the others of this turn of the loop.

        Whatever else is written here, or ends the connection, must be preceded by `flush`.
        """
        if len(answer) > _SOON:
            self.transport.write(answer)
        else:
            self._answer = answer
            self.shared.batch.add(self)

    def flush(self, polled: bool = False) -> None:
        """Write the answer that waits, if one does."""
        answer = self._answer
        if answer:
            self._answer = b""
            if not self.transport.is_closing():
                self.transport.write(answer)

    def _pause_reading(self) -> None:
        if not self._paused_at:
            self._paused_at = self.shared.loop.time()
            self.transport.pause_reading()

    def _resume_reading(self) -> float:
        """Read again, and return for how many seconds nothing was read."""
        if not self._paused_at:
            return 0.0
        pause = self.shared.loop.time() - self._paused_at
        self._paused_at = 0.0
        self.transport.resume_reading()
        return pause

    def _watch_writing(self) -> None:
        """Start to measure whether the client reads what is on its way to it."""
        self._amount = self.transport.get_write_buffer_size()
        self._expire_in(self.shared.settings.body_idle_timeout)

    def _check_writing(self) -> None:
        """Cut a client that has read (nearly) nothing of its answer since the last look."""
        settings = self.shared.settings
        read = self._amount - self.transport.get_write_buffer_size()
        if read > 0 and read >= settings.body_min_rate * settings.body_idle_timeout:
            self._watch_writing()
            return
        self._leave(CLIENT_DISCONNECTED)
        self._phase = CLOSED
        self.transport.abort()

    # Ends.

    def _close(self) -> None:
        """Close once everything written has been sent; a client that does not read it is cut."""
        self.flush()
        self._phase = CLOSED
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._watch_writing()

    def _linger(self) -> None:
        """Close for writing, and read on for a moment.

        Closing at once with unread input makes the kernel send a reset, which can destroy the
        answer before the client has read it (RFC 9112 section 9.6).
        """
        self.flush()
        self._phase = LINGER
        self._amount = 0
        self._resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._expire_in(_LINGER_SECONDS)

    def _discard_lingering(self, size: int) -> None:
        self._amount += size
        if self._amount > _LINGER_BYTES:
            # Enough: let the client wait, until it reads its answer or the time is up.
            self._pause_reading()

    def cut(self, *, reset: bool) -> None:
        """End in the middle of an answer. `reset` if its framing would not show that it broke off.

        The cycle, if one is under way, learns that the connection is gone.
        """
        self._leave(CLIENT_DISCONNECTED)
        if not reset:
            self._close()
            return
        self._phase = CLOSED
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
