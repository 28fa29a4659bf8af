"""`lockgate chaos SCENARIO...`: rehearse failures against a configuration, and judge each route."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.cli.console import print_json, print_line
from gateway.cli.main import config_option
from gateway.server.exits import Exit

if TYPE_CHECKING:
    from gateway.chaos.report import Report
    from gateway.chaos.scenario import Written
    from gateway.runtime import Loaded


_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@click.command("chaos")
@click.argument("scenarios", nargs=-1, required=True, type=click.Path(path_type=Path))
@config_option
@click.option("--route", "routes", multiple=True, metavar="NAME", help="Only this; repeatable.")
@click.option("--seed", type=click.IntRange(0), default=0, help="What chance begins with.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
@click.option(
    "--junit", type=click.Path(path_type=Path), help="Write a JUnit report to this file, too."
)
@click.pass_context
def command(  # noqa: PLR0917 - click passes what was declared above
    ctx: click.Context,
    scenarios: tuple[Path, ...],
    config: Path | None,
    routes: tuple[str, ...],
    seed: int,
    as_json: bool,
    junit: Path | None,
) -> None:
    """Rehearse failures: run each SCENARIO file against the configuration, and judge every route.

    Upstreams, the store, and identity providers are stood in for; nothing outside this process is
    called. The exit code is 0 if every expectation was met, 1 if not, 78 if the configuration or a
    scenario can't be used.
    """
    from gateway.chaos.scenario import read_scenario
    from gateway.cli.offline import load

    written = [read_scenario(path, os.environ) for path in scenarios]
    loaded = load(config)
    known = [route.name for route in loaded.configuration.gateway.routes]
    for name in routes:
        if name not in known:
            raise click.BadParameter(f"the configuration has no route {name!r}", param_hint="NAME")
    _check_names(written, loaded)
    # What breaks here breaks on purpose; the verdict says what became of it.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    show = _nothing if as_json else _show
    reports = _run_all(ctx, loaded, written, routes, seed, show)
    ok = all(report.ok for report in reports)
    if as_json:
        print_json({"ok": ok, "scenarios": reports})
    if junit is not None:
        from gateway.cli.junit import write

        write(junit, reports)
    ctx.exit(Exit.OK if ok else Exit.FAILURE)


def _check_names(written: list[Written], loaded: Loaded) -> None:
    """Every scenario, before the first one runs. Raises ConfigErrors."""
    gateway = loaded.configuration.gateway
    for each in written:
        each.check_names([route.name for route in gateway.routes], gateway.upstreams)


def _run_all(
    ctx: click.Context,
    loaded: Loaded,
    written: list[Written],
    routes: tuple[str, ...],
    seed: int,
    show: Callable[[Report], None],
) -> list[Report]:
    import uvloop

    from gateway.chaos.run import rehearse

    caught: list[int] = []

    async def run() -> list[Report]:
        task = asyncio.current_task()
        assert task is not None

        def leave(number: int) -> None:
            caught.append(number)
            # Once: closing everything takes a moment, and must not be cut short itself.
            if len(caught) == 1:
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, leave, number)
        reports = []
        try:
            for each in written:
                report = await rehearse(loaded, each, only=routes, seed=seed, tell=_tell)
                show(report)
                reports.append(report)
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
        return reports

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())
    except asyncio.CancelledError:
        # Everything was closed on the way; the code is the one a shell gives to that signal.
        print_line("error", "interrupted: nothing was judged")
        ctx.exit(128 + (caught[0] if caught else signal.SIGINT))


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"... {text}", err=True)


def _nothing(report: Report) -> None:
    del report


def _show(report: Report) -> None:
    from gateway.cli.verdicts import show

    show(report)
