"""Notices that the configuration's files changed, and says so once for each change.

What counts is content: touching a file changes nothing. Directories are watched rather than files,
because editors replace files, and because Kubernetes mounts a ConfigMap as symbolic links and swaps
the link `..data` beside them. Announcements can be lost or never come (network file systems,
watch limits, a directory that was replaced), so the files are looked at every few seconds as well.

This module decides *when* to reload, never *what* a reload does.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

logger = logging.getLogger("gateway.reload")

DEBOUNCE_MS: Final = 200
STEP_MS: Final = 100
LOOK_EVERY: Final = 2.0
POLL_EVERY: Final = 1.0
_MAX_LINKS: Final = 40
_CLOCK_STEP_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Watched:
    """The files that a configuration was made of, and the globs that may match new ones."""

    files: tuple[Path, ...]
    globs: tuple[Path, ...] = ()

    def stamp(self) -> str:
        """A digest of every file's name and content; a missing file is a content of its own."""
        digest = hashlib.sha256()
        for path in self.present():
            digest.update(os.fsencode(path) + b"\0")
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError:
                digest.update(b"missing")
        return digest.hexdigest()

    def signature(self) -> tuple[tuple[str, int, int, int], ...]:
        """What `stat` says of every file: cheap, and different whenever `stamp` is."""
        found = []
        for path in self.present():
            try:
                status = path.stat()
            except OSError:
                found.append((str(path), 0, 0, 0))
            else:
                found.append((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def touched_since(self, wall: float) -> bool:
        """Whether a file, or a directory around one, may have changed after `wall` (Unix time)."""
        # File systems stamp with a clock that runs in steps.
        since = (wall - _CLOCK_STEP_S) * 1e9
        for path in (*self.present(), *self.directories()):
            try:
                status = path.stat()
            except OSError:
                return True
            if max(status.st_mtime_ns, status.st_ctime_ns) >= since:
                return True
        return False

    def present(self) -> list[Path]:
        """The files, and whatever the globs match now, in a fixed order."""
        matched = {
            found for glob in self.globs for found in Path(glob.anchor).glob(_relative(glob))
        }
        return sorted(matched.union(self.files))

    def directories(self) -> list[Path]:
        """The existing directories in which a change of any file must show."""
        wanted: set[Path] = set()
        for path in self.files:
            wanted.update(_link_parents(path))
        for glob in self.globs:
            wanted.update(_glob_parents(glob))
        return sorted({_existing(path) for path in wanted})


class Watcher:
    """Calls `on_change` when the content of the watched files is another than last time.

    `served` gives the files of what is served and the stamp they had when it was loaded. It is
    asked again after each change, because a reload may bring other files.
    """

    def __init__(
        self,
        served: Callable[[], tuple[Watched, str]],
        on_change: Callable[[], Awaitable[object]],
        *,
        polling: bool = False,
    ) -> None:
        self._served = served
        self._on_change = on_change
        self._polling = polling
        self._watched, self._stamp = served()
        self._signature: object = None

    async def run(self) -> None:
        """Watch until cancelled. Never raises for what happens in the file system."""
        while True:
            directories = self._watched.directories()
            async for _ in self._wakeups(directories):
                await self._look()
                # Others after a reload, and others after a directory or a link was replaced.
                if directories != self._watched.directories() and not self._polling:
                    break

    async def _look(self) -> None:
        watched = self._watched
        signature = await asyncio.to_thread(watched.signature)
        if signature == self._signature:
            return
        self._signature = signature
        stamp = await asyncio.to_thread(watched.stamp)
        if stamp == self._stamp:
            return
        await self._on_change()
        self._watched, loaded = self._served()
        # After a refusal the old files are still the ones to watch; what was seen just now is not
        # tried again until it changes.
        self._stamp = stamp if self._watched == watched else loaded
        self._signature = None

    async def _wakeups(self, directories: Sequence[Path]) -> AsyncIterator[None]:
        """Yield whenever it may be worth looking at the files, and at once."""
        yield
        if not self._polling:
            try:
                async for _ in _announcements(directories):
                    yield
            except OSError as error:
                logger.warning("watching files fails (%s); looking at them instead", error)
                self._polling = True
        while True:
            await asyncio.sleep(POLL_EVERY)
            yield


async def _announcements(directories: Sequence[Path]) -> AsyncIterator[None]:
    # Imported here because a gateway that does not watch should not pay for it.
    from watchfiles import awatch

    changes = awatch(
        *directories,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        rust_timeout=round(LOOK_EVERY * 1000),
        yield_on_timeout=True,
        recursive=False,
        force_polling=False,
        ignore_permission_denied=True,
    )
    async for _ in changes:
        yield


def _link_parents(path: Path) -> set[Path]:
    """The directory of the file, and that of every symbolic link on the way to it."""
    parents: set[Path] = set()
    pending = Path(os.path.abspath(path))  # noqa: PTH100 - links must not be resolved here
    for _ in range(_MAX_LINKS):
        parents.add(pending.parent)
        link = next((each for each in _prefixes(pending) if each.is_symlink()), None)
        if link is None:
            break
        parents.add(link.parent)
        try:
            target = link.parent / link.readlink()
        except OSError:
            break
        pending = Path(os.path.normpath(target / pending.relative_to(link)))
    return parents


def _prefixes(path: Path) -> Iterable[Path]:
    return (*reversed(path.parents), path)


def _glob_parents(glob: Path) -> set[Path]:
    """Every directory that the glob looks into, and those that it walks through."""
    fixed = Path(glob.anchor)
    rest = list(glob.parts[1:])
    while rest and not any(char in rest[0] for char in "*?["):
        fixed /= rest.pop(0)
    parents = _link_parents(fixed / "any")
    for depth in range(1, len(rest)):
        parents.update(each for each in fixed.glob("/".join(rest[:depth])) if each.is_dir())
    return parents


def _relative(glob: Path) -> str:
    return str(glob.relative_to(glob.anchor))


def _existing(path: Path) -> Path:
    return next((each for each in (path, *path.parents) if each.is_dir()), Path("/"))
