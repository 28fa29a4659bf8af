"""One way to reload, used by HUP, the file watcher and the admin API alike.

Load, compare, apply; on any error what served before keeps serving, and the error is logged,
counted and remembered for the admin API. Reloads run one after another; those that are asked for
while one waits become one.

How a configuration is applied (in this process, or in every worker) is given from outside.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.admin.control import IssueInfo, ReloadInfo
from gateway.clock import Clock
from gateway.config.issues import ConfigErrors, Issue
from gateway.config.loader import Configuration
from gateway.errors import ConfigError
from gateway.observability.metrics import Metrics
from gateway.runtime import Loaded
from gateway.server.role import GATEWAY, Role
from gateway.server.sources import (
    load_configuration,
    located,
    needs_restart,
    watched_files,
)
from gateway.server.watch import Watched
from gateway.settings import Settings

logger = logging.getLogger("gateway.reload")

Apply = Callable[[Loaded], Awaitable[int]]
_LOGGED_ISSUES: Final = 50


class Reloader:
    """Holds what is served now, and replaces it.

    `loaded` is the first configuration, which was read from `began` on (Unix time, by the clock
    that file systems stamp with). `apply` makes a loaded configuration the one that serves, whole
    or not at all, and returns its generation; it raises ConfigErrors or ConfigError if it can't be
    built, and anything else if it could not be brought about.
    """

    def __init__(
        self,
        settings: Settings,
        loaded: Loaded,
        began: float,
        apply: Apply,
        clock: Clock,
        metrics: Metrics,
        *,
        role: Role = GATEWAY,
    ) -> None:
        self._settings = settings
        self._began = began
        self._apply = apply
        self._clock = clock
        self._metrics = metrics
        self._role = role
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[ReloadInfo] | None = None
        self._running: set[asyncio.Task[ReloadInfo]] = set()
        self._stamp = ""
        self._settled = False
        self.loaded = loaded
        self.loaded_at = clock.wall()
        self.generation = 0
        self.last: ReloadInfo | None = None

    @property
    def configuration(self) -> Configuration:
        """What is served now."""
        return self.loaded.configuration

    def served(self) -> tuple[Watched, str]:
        """The files behind what is served now, and their stamp when it was loaded.

        The stamp is empty if they may have changed while they were read: then nobody knows.
        """
        watched = watched_files(self._settings, self.configuration)
        return watched, self._stamp if self._settled else ""

    async def start(self) -> None:
        """Apply the first configuration. Raises what `apply` raises, with places in the files."""
        self._stamp, self._settled = await self._inspect(self.loaded, self._began)
        self.generation = await self._build(self.loaded)
        self.loaded_at = self._clock.wall()

    async def reload(self, cause: str) -> ReloadInfo:
        """Load the files again and swap if they are good; `cause` is signal, file or admin.

        Never raises for what is in the files. A caller that is cancelled does not stop the reload.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._run(cause))
            self._running.add(self._next)
            self._next.add_done_callback(self._running.discard)
        return await asyncio.shield(self._next)

    async def aclose(self) -> None:
        """Give up reloads under way; what serves goes on serving."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self, cause: str) -> ReloadInfo:
        async with self._lock:
            # From here on the files are being read: who comes now wants another reload.
            self._next = None
            outcome = await self._attempt(cause)
        self.last = outcome
        self._tell(outcome)
        return outcome

    async def _attempt(self, cause: str) -> ReloadInfo:
        try:
            began = time.time()
            loaded = await asyncio.to_thread(
                load_configuration, self._settings, os.environ, self._role
            )
            fixed = needs_restart(
                self._settings, self.configuration, loaded.configuration, self._role
            )
            if fixed:
                raise ConfigErrors(fixed)
            stamp, settled = await self._inspect(loaded, began)
            changed = (
                stamp != self._stamp
                or loaded.configuration.fingerprint != self.configuration.fingerprint
            )
            if changed:
                self.generation = await self._build(loaded)
                self.loaded_at = self._clock.wall()
                self.loaded, self._stamp = loaded, stamp
            self._settled = settled
        except ConfigError as error:
            return self._outcome(cause, loaded=self.loaded, errors=issues_of(error))
        except Exception as error:
            # Whatever else went wrong, what served before still serves: say so and go on.
            logger.exception("the reload failed")
            return self._outcome(cause, loaded=self.loaded, errors=[_internal(error)])
        return self._outcome(cause, loaded=loaded, changed=changed)

    async def _build(self, loaded: Loaded) -> int:
        try:
            return await self._apply(loaded)
        except ConfigError as error:
            raise located(error, loaded.configuration) from error

    async def _inspect(self, loaded: Loaded, began: float) -> tuple[str, bool]:
        """The stamp of the files, and whether they can't have changed since `began`."""
        watched = watched_files(self._settings, loaded.configuration)
        stamp = await asyncio.to_thread(watched.stamp)
        return stamp, not await asyncio.to_thread(watched.touched_since, began)

    def _outcome(
        self,
        cause: str,
        *,
        loaded: Loaded,
        changed: bool = True,
        errors: list[IssueInfo] | None = None,
    ) -> ReloadInfo:
        return ReloadInfo(
            ok=not errors,
            generation=self.generation,
            at=self._clock.wall(),
            fingerprint=loaded.configuration.fingerprint,
            cause=cause,
            changed=changed and not errors,
            errors=errors or (),
            warnings=[issue_info(each) for each in loaded.configuration.warnings],
        )

    def _tell(self, outcome: ReloadInfo) -> None:
        self._metrics.config_reloaded(outcome.ok)
        facts = {"cause": outcome.cause, "generation": outcome.generation}
        if not outcome.ok:
            logger.error(
                "reload refused, the old configuration keeps serving: %d error(s)",
                len(outcome.errors),
                extra=facts,
            )
            for issue in outcome.errors[:_LOGGED_ISSUES]:
                logger.error("%s", issue_line(issue), extra=facts)
        elif outcome.changed:
            logger.info("reloaded", extra=facts)
            for issue in outcome.warnings[:_LOGGED_ISSUES]:
                logger.warning("%s", issue_line(issue), extra=facts)
        else:
            logger.info("reload: nothing has changed", extra=facts)


def issues_of(error: ConfigError) -> list[IssueInfo]:
    """Every issue of a refused configuration, as plain data."""
    if isinstance(error, ConfigErrors):
        return [issue_info(each) for each in error.issues]
    return [IssueInfo(file="", line=0, column=0, path=error.path, message=error.message)]


def issue_info(issue: Issue) -> IssueInfo:
    """An issue as the admin API shows it."""
    return IssueInfo(
        file=str(issue.file),
        line=issue.line,
        column=issue.column,
        path=issue.path,
        message=issue.message,
        hint=issue.hint or "",
    )


def issue_line(issue: IssueInfo) -> str:
    """`file:line:column: path: message (hint)`, without the parts that are not known."""
    place = f"{issue.file}:{issue.line}:{issue.column}: " if issue.file else ""
    path = f"{issue.path}: " if issue.path else ""
    hint = f" ({issue.hint})" if issue.hint else ""
    return f"{place}{path}{issue.message}{hint}"


def _internal(error: Exception) -> IssueInfo:
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return IssueInfo(file="", line=0, column=0, path="", message=message)
