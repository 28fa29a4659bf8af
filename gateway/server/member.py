"""One worker process as the supervising process sees it: spawned, called, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from gateway.admin.control import Check
from gateway.observability.snapshot import Snapshot
from gateway.server.channel import Channel, open_channel
from gateway.server.engines import FleetEngines
from gateway.server.orders import Launch
from gateway.server.worker import BEATS

# The child must find this package wherever the parent found it, and nothing else.
_ENTRY: Final = (
    "import json, sys; arguments = json.loads(sys.argv[1]); sys.path[:] = arguments.pop('path'); "
    # Before the imports, which make most of the objects of a start.
    "from gateway.pauses import prepare_process; prepare_process(); "
    "from gateway.server.worker import main; main(**arguments)"
)


class Member:
    """A worker process. `generation` is what it serves, 0 before it does.

    `number` is never used twice, unlike `slot` and the process id.
    """

    def __init__(
        self, number: int, slot: int, process: asyncio.subprocess.Process, channel: Channel
    ) -> None:
        self.number = number
        self.slot = slot
        self.process = process
        self.channel = channel
        self.generation = 0
        self.ready = False
        self.error = ""
        # What it said last of its store: None if it has none.
        self.store: str | None = None
        # Ticks of our own clock since the last heartbeat: after this process itself was stopped
        # for a while, nobody has missed anything.
        self._silent = 0

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self.process.returncode is None

    def heard(self) -> None:
        """A heartbeat came."""
        self._silent = 0

    async def gone(self, heartbeat: float) -> str:
        """Wait until the process has ended, and return why. One that hangs is killed."""
        exited = asyncio.create_task(self.process.wait())
        cause = ""
        try:
            while not exited.done():
                await asyncio.wait({exited}, timeout=heartbeat / BEATS)
                self._silent += 1
                if self._silent > BEATS and not exited.done() and not cause:
                    cause = f"gave no sign of life for {heartbeat:g} s and was killed"
                    self.kill()
        finally:
            exited.cancel()
        await self.channel.aclose()
        return cause or _ending(self.process.returncode)

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


async def spawn(
    number: int,
    slot: int,
    shared: Sequence[Sequence[socket.socket]],
    *,
    on_snapshot: Callable[[int, Snapshot], None],
    on_leaving: Callable[[int], None],
    engines: FleetEngines,
) -> Member:
    """Start a worker process, which inherits every socket of `shared`. Raises OSError."""
    ours, theirs = socket.socketpair()
    numbers = [[each.fileno() for each in group] for group in shared]
    arguments = {
        "path": sys.path, "slot": slot, "channel": theirs.fileno(), "shared": numbers,
    }  # fmt: skip
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _ENTRY,
            json.dumps(arguments),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *(each for group in numbers for each in group)],
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    member: Member

    async def beat(payload: msgspec.Raw) -> None:
        member.store = msgspec.json.decode(payload)
        member.heard()

    async def metrics(payload: msgspec.Raw) -> None:
        on_snapshot(number, msgspec.json.decode(payload, type=Snapshot))

    async def leaving(_: msgspec.Raw) -> None:
        member.ready = False
        on_leaving(slot)

    handlers: dict[str, Any] = {
        "beat": beat, "metrics": metrics, "leaving": leaving, **engines.handlers(number),
    }  # fmt: skip
    member = Member(number, slot, process, await open_channel(ours, handlers))
    return member


async def start(member: Member, launch: Launch, timeout: float) -> None:
    """Have the worker build and serve. Raises what the channel raises, and TimeoutError.

    A worker that could not start is killed.
    """
    try:
        async with asyncio.timeout(timeout):
            await member.channel.call("start", launch)
    except BaseException:
        member.kill()
        await member.process.wait()
        await member.channel.aclose()
        raise
    member.generation = launch.build.generation


def _ending(code: int | None) -> str:
    if code is None:
        return "is in an unknown state"
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def store_checks(members: Sequence[Member]) -> list[Check]:
    """A line on the store, if these workers have one: how many of them can't reach it, and why."""
    troubles = [each.store for each in members if each.store is not None]
    bad = [each for each in troubles if each]
    detail = f"{len(bad)} of {len(troubles)} workers: {bad[0]}" if bad else ""
    return [Check("store", not bad, detail)] if troubles else []
