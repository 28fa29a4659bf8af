"""Calls between the supervising process and one worker, over a socket pair.

A frame is four bytes of length (big endian) and one JSON message. Either side may call the other,
several calls at once; each call is answered once, with a result or with a failure. The end of the
stream means that the other process is gone.

Only the transport of calls is here; what may be called is up to the handlers given by each side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from gateway.config.issues import ConfigErrors, Issue
from gateway.errors import ConfigError

logger = logging.getLogger("gateway.workers")

MAX_FRAME: Final = 1 << 30
_LENGTH: Final = 4

T = TypeVar("T")
CallHandler = Callable[[msgspec.Raw], Awaitable[Any]]


class Failure(msgspec.Struct, omit_defaults=True):
    """Why a call failed. With `issues`, or with the `path` of a key, it is the configuration's."""

    message: str
    issues: list[Issue] | None = None
    path: str | None = None


class Message(msgspec.Struct, omit_defaults=True):
    """A call (`method` is set), or the answer to the call of that `id`. Id 0 asks for no answer."""

    id: int = 0
    method: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None


class ChannelClosed(Exception):
    """The other process is gone, or went before it answered."""


class CallFailed(Exception):
    """The other process could not do what it was asked; the message says why."""


class Channel:
    """One end of the conversation. Use `open_channel` to make one."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Mapping[str, CallHandler],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._last_id = 0
        self._closed = False
        self._reading = asyncio.create_task(self._read())
        # Set at the end of the stream, whatever ended it.
        self.gone = asyncio.Event()

    async def call(self, method: str, payload: Any = None, *, result: type[T] | Any = Any) -> T:
        """Have the other side do `method`, and return its result decoded as `result`.

        Raises ChannelClosed, CallFailed, and the ConfigErrors or ConfigError of the other side.
        """
        if self._closed:
            raise ChannelClosed
        self._last_id += 1
        call_id = self._last_id
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = future
        try:
            self._send(Message(call_id, method, _encode(payload)))
            raw = await future
        finally:
            self._waiting.pop(call_id, None)
        return msgspec.json.decode(raw, type=result)

    def notify(self, method: str, payload: Any = None) -> None:
        """Tell the other side something that needs no answer; if it is gone, nothing happens."""
        if not self._closed:
            self._send(Message(0, method, _encode(payload)))

    async def aclose(self) -> None:
        """Close this end, once what was said has left. Calls under way raise ChannelClosed."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _send(self, message: Message) -> None:
        body = msgspec.json.encode(message)
        self._writer.write(len(body).to_bytes(_LENGTH, "big") + body)

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(_LENGTH)
                length = int.from_bytes(head, "big")
                if length > MAX_FRAME:
                    logger.error("a frame of %d bytes on the worker channel", length)
                    return
                body = await self._reader.readexactly(length)
                self._dispatch(msgspec.json.decode(body, type=Message))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except msgspec.DecodeError as error:
            logger.error("no message on the worker channel: %s", error)
        finally:
            self._end()

    def _dispatch(self, message: Message) -> None:
        if message.method:
            task = asyncio.create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        future = self._waiting.get(message.id)
        if future is None or future.done():
            return
        if message.failure is None:
            future.set_result(message.payload)
        elif message.failure.issues is not None:
            future.set_exception(ConfigErrors(message.failure.issues))
        elif message.failure.path is not None:
            future.set_exception(ConfigError(message.failure.message, message.failure.path))
        else:
            future.set_exception(CallFailed(message.failure.message))

    async def _answer(self, message: Message) -> None:
        try:
            result = await self._handlers[message.method](message.payload)
            answer = Message(message.id, payload=_encode(result))
        except ConfigErrors as error:
            answer = Message(message.id, failure=Failure(str(error), list(error.issues)))
        except ConfigError as error:
            answer = Message(message.id, failure=Failure(error.message, path=error.path))
        except Exception as error:
            logger.exception("the call %s failed", message.method)
            answer = Message(message.id, failure=Failure(f"{type(error).__name__}: {error}"))
        if message.id and not self._closed:
            self._send(answer)

    def _end(self) -> None:
        self._closed = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ChannelClosed())
        for task in self._answering:
            task.cancel()
        self._writer.close()
        self.gone.set()


async def open_channel(end: socket.socket, handlers: Mapping[str, CallHandler]) -> Channel:
    """A channel over one end of a socket pair, which it owns from now on."""
    reader, writer = await asyncio.open_connection(sock=end, limit=1 << 20)
    return Channel(reader, writer, handlers)


def _encode(payload: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(payload))
