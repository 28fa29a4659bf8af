"""`lockgate dlq`: the dead letters of a running gateway, listed, shown, replayed and purged."""

from __future__ import annotations

import base64
import getpass
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from gateway.cli.admin_calls import Caller, calls_admin, event_path, output_option, when
from gateway.cli.console import print_json, print_table
from gateway.cli.pacing import Pacer, Progress, read_rate
from gateway.server.exits import Exit

_PAGE: Final = 500
_SAMPLES: Final = 5
_FILTERS: Final = (
    ("route", "Of this route."),
    ("target", "For this target."),
    ("reason", "Given up for this reason: permanent, exhausted, expired, invalid or internal."),
    ("code", "With this error code."),
    ("status", "With this last status: 503, or a class such as 5xx."),
    ("since", "Not older than this: an age such as 2h, or a time such as 2026-01-31T12:00:00Z."),
    ("until", "Older than this."),
    ("event", "Of this event."),
    ("correlation-id", "Of this transaction."),
    ("where", "A CEL expression over request, params, consumer, body and letter."),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that say which letters are meant."""
    for name, text in reversed(_FILTERS):
        command = click.option(f"--{name}", default="", help=text)(command)
    return command


def _wanted(options: dict[str, Any]) -> dict[str, Any]:
    names = [name.replace("-", "_") for name, _ in _FILTERS]
    return {name: options[name] for name in names if options.get(name)}


@click.group("dlq")
def command() -> None:
    """Look after dead letters: events that were given up for a target."""


@command.command("list")
@filter_options
@click.option("--limit", default=100, show_default=True, help="How many at most; 0 for all.")
@output_option
@calls_admin
def list_(caller: Caller, limit: int, output: str, **options: Any) -> None:
    """List dead letters, the oldest first. All that is given must hold."""
    letters = _letters(caller, _wanted(options), limit)
    if output == "jsonl":
        for letter in letters:
            click.echo(msgspec.json.encode(letter))
        return
    found = list(letters)
    if output == "json":
        print_json({"letters": found})
        return
    _table(found)
    if limit and len(found) == limit:
        click.echo(f"the first {limit}; --limit 0 lists all", err=True)


def _letters(caller: Caller, wanted: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    left = limit or None
    cursor = ""
    while True:
        count = _PAGE if left is None else min(left, _PAGE)
        page = caller.get("/letters", {**wanted, "limit": count, "cursor": cursor})
        yield from page["letters"]
        if left is not None:
            left -= len(page["letters"])
        cursor = page["cursor"]
        if not cursor or left == 0:
            return


def _table(letters: list[dict[str, Any]]) -> None:
    heads = ["TIME", "ROUTE", "TARGET", "REASON", "STATUS", "CODE", "EVENT", "CORRELATION ID"]
    print_table(heads, [
        [
            when(each["at"]), each["route"], each["target"], each["reason"],
            str(each["status"] or "-"), each["code"] or "-", each["event"],
            each["correlation_id"] or "-",
        ]
        for each in letters
    ])  # fmt: skip


@command.command("show")
@click.argument("event")
@click.option("--body", is_flag=True, help="Also the body that is sent now.")
@click.option("--version", type=int, help="Also this version of the body; 0 is the one that came.")
@output_option
@calls_admin
def show(caller: Caller, event: str, body: bool, version: int | None, output: str) -> None:
    """Show one event: its state for each target, every attempt, every version of its body."""
    params: dict[str, Any] = {"body": "true" if body else ""}
    if version is not None:
        params["version"] = version
    found = caller.get(event_path(event), params)
    if output == "text":
        _print_event(found)
    elif output == "json":
        print_json(found)
    else:
        click.echo(msgspec.json.encode(found))


def _print_event(found: dict[str, Any]) -> None:
    status, request = found["status"], found["request"]
    click.echo(f"event        {status['event_id']}  {status['state']}")
    click.echo(f"route        {status['route']}, {when(status['received_at'])}, {status['origin']}")
    click.echo(f"correlation  {status['correlation_id']}")
    click.echo(f"request      {request['method']} {request['path']}")
    for version in found["versions"]:
        used = f", for {', '.join(version['used_by'])}" if version["used_by"] else ""
        size = "let go of" if version["size"] is None else f"{version['size']} bytes"
        click.echo(f"body {version['version']:<7} {size}{used}")
    for target in status["targets"]:
        epoch = f", epoch {target['epoch']}" if target.get("epoch", 1) > 1 else ""
        reason = f", {target['reason']}" if target.get("reason") else ""
        click.echo(f"\ntarget {target['target']}: {target['state']}{reason}{epoch}")
        for name in ("detail", "answer"):
            if target.get(name):
                click.echo(f"  {name}: {target[name]}")
        for attempt in target.get("history", ()):
            told = attempt.get("code") or attempt["status"]
            number = f"{attempt.get('epoch', 1)}.{attempt['number']}"
            click.echo(f"  {number:<6} {when(attempt['at'])}  {attempt['ms']} ms  {told}")
    body = found.get("body")
    if body is not None:
        click.echo(f"\n{body['text'] if 'text' in body else body['base64']}")


@command.command("replay")
@filter_options
@click.option("--all", "everything", is_flag=True, help="Every dead letter there is.")
@click.option("--to", default="", help="To this target of the route, instead of the letter's own.")
@click.option(
    "--body", "body_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Send this file instead of the event's body; of one event alone.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Send also what breaks the route's contract.")
@click.option("--rate", default="", help="No more than so many: 50/s, 1000/m.")
@click.option("--dry-run", is_flag=True, help="Count them and show some; replay nothing.")
@output_option
@calls_admin
def replay(  # noqa: PLR0917 - click passes its options
    caller: Caller,
    everything: bool,
    to: str,
    body_file: Path | None,
    force: bool,
    rate: str,
    dry_run: bool,
    output: str,
    **options: Any,
) -> None:
    """Send dead letters on their way again, the oldest first.

    Each begins a new epoch: its attempts count anew, and its idempotency key is another one. What
    was sent is no dead letter any more, so a replay that was interrupted is simply run again. The
    exit code is 1 if some of them could not be sent.
    """
    wanted = _checked(options, everything)
    pacer = Pacer(*read_rate(rate), time.monotonic, time.sleep)
    order: dict[str, Any] = {**wanted, "all": everything, "force": force, "by": _who()}
    if to:
        order["to"] = to
    if body_file is not None:
        if "event" not in wanted:
            raise click.UsageError("--body is for one event: give --event")
        order["body_base64"] = base64.b64encode(body_file.read_bytes()).decode()
    total = _count(caller, wanted, output, shown=dry_run)
    if dry_run:
        return
    progress = Progress(total, "replayed", time.monotonic)
    skipped: Counter[str] = Counter()
    details: list[str] = []
    cursor = ""
    with progress:
        while True:
            count = pacer.take(_PAGE)
            done = caller.post("/letters/replay", {**order, "limit": count, "cursor": cursor})
            pacer.used(done["replayed"])
            skipped.update(done["skipped"])
            details += done["details"]
            progress.more(done["replayed"], sum(done["skipped"].values()))
            cursor = done["cursor"]
            if not cursor:
                break
    _told(output, {"replayed": progress.done, "skipped": dict(skipped), "details": details[:20]})
    # What somebody else sent meanwhile is as good as sent.
    if skipped.total() > skipped["gone"]:
        raise click.exceptions.Exit(Exit.FAILURE)


@command.command("purge")
@filter_options
@click.option("--all", "everything", is_flag=True, help="Every dead letter there is.")
@click.option("--yes", is_flag=True, help="Do it. Without, they are counted and some are shown.")
@output_option
@calls_admin
def purge(caller: Caller, everything: bool, yes: bool, output: str, **options: Any) -> None:
    """Throw dead letters away, and their events where nothing else needs them. There is no undo."""
    wanted = _checked(options, everything)
    total = _count(caller, wanted, output, shown=not yes)
    if not yes:
        click.echo("nothing was purged: give --yes to do it", err=True)
        raise click.exceptions.Exit(Exit.FAILURE)
    order = {**wanted, "all": everything, "by": _who(), "limit": _PAGE}
    progress = Progress(total, "purged", time.monotonic)
    cursor = ""
    with progress:
        while True:
            done = caller.post("/letters/purge", {**order, "cursor": cursor})
            progress.more(done["removed"])
            cursor = done["cursor"]
            if not cursor:
                break
    _told(output, {"purged": progress.done})


def _checked(options: dict[str, Any], everything: bool) -> dict[str, Any]:
    wanted = _wanted(options)
    if not wanted and not everything:
        raise click.UsageError("say which dead letters are meant, or --all")
    if wanted and everything:
        raise click.UsageError("--all leaves no room for filters")
    return wanted


def _count(caller: Caller, wanted: dict[str, Any], output: str, *, shown: bool) -> int:
    """How many there are; `shown` prints that, and the first of them."""
    total, failed, cursor = 0, 0, ""
    samples: list[dict[str, Any]] = []
    while True:
        asked = {**wanted, "count": "true", "limit": _SAMPLES - len(samples), "cursor": cursor}
        page = caller.get("/letters", asked)
        samples += page["letters"]
        total += int(page["matched"])
        failed, cursor = failed + page["failed"], page["cursor"]
        if not cursor:
            break
    if failed:
        click.echo(f"{failed} had no answer to the expression and are left out", err=True)
    if shown and output == "text":
        _table(samples)
        click.echo(f"{total} in all")
    elif shown:
        _told(output, {"matched": total, "samples": samples})
    return total


def _told(output: str, facts: dict[str, Any]) -> None:
    if output == "json":
        print_json(facts)
    elif output == "jsonl":
        click.echo(msgspec.json.encode(facts))
    else:
        for cause, count in facts.get("skipped", {}).items():
            click.echo(f"{count} not replayed: {_CAUSES.get(cause, cause)}", err=True)
        for detail in facts.get("details", ()):
            click.echo(f"  {detail}", err=True)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


_CAUSES: Final = {
    "gone": "no dead letters any more",
    "no_target": "the target is not configured",
    "open": "under way to that target already",
    "invalid": "the body breaks the route's contract (--force sends it, --body corrects it)",
    "no_order": "what the order is made of is missing",
    "unreadable": "written by another version",
    "changed": "changed meanwhile; run it again",
}
