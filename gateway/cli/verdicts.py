"""How the verdicts of `lockgate chaos` are printed for people."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gateway.chaos.report import Counted, Report
from gateway.chaos.verdict import Latency, RouteVerdict, percent, seconds, times
from gateway.cli.console import print_table

_HEADS = ("ROUTE", "ANSWERS", "FAILED", "P50", "P99", "UPSTREAM", "RECOVERY", "VERDICT")


def show(report: Report) -> None:
    """One scenario: a line for each route, then whatever the lines don't say."""
    colour = click.get_current_context().find_root().color
    about = f": {report.about}" if report.about else ""
    click.echo(click.style(f"{report.scenario}{about}", bold=True), color=colour)
    print_table(_HEADS, [_row(each) for each in report.routes])
    for line in _details(report):
        click.echo(line)
    word = "ok" if report.ok else "MISSED"
    judged = [each for each in report.routes if not each.skipped]
    good = sum(each.ok for each in judged)
    text = click.style(word, fg="green" if report.ok else "red", bold=True)
    asked = f"{report.sent} requests in {seconds(report.seconds)}, seed {report.seed}"
    click.echo(f"{text}: {good} of {len(judged)} route(s) met what is expected; {asked}\n",
               color=colour)  # fmt: skip


def _row(each: RouteVerdict) -> list[str]:
    if each.skipped:
        return [each.route, "-", "-", "-", "-", "-", "-", "skipped"]
    answers = " ".join(f"{name}:{count}" for name, count in each.classes.items())
    latency: Latency | None = each.latency_during
    verdict = "ok" if each.ok else "MISSED"
    return [
        each.route,
        answers or "-",
        percent(each.failed_during),
        seconds(latency.p50 if latency else None),
        seconds(latency.p99 if latency else None),
        times(each.amplification),
        seconds(each.recovery),
        verdict if each.checks else "-",
    ]


def _details(report: Report) -> Iterator[str]:
    for each in report.routes:
        if each.skipped:
            yield f"  skipped {each.route}: {each.skipped}"
        for check in each.checks:
            if not check.ok:
                yield f"  missed  {each.route}: {check.name}: {check.wanted}; seen: {check.seen}"
    for each in report.routes:
        if each.codes:
            codes = ", ".join(f"{code} {count}" for code, count in each.codes.items())
            yield f"  codes   {each.route}: {codes}"
    yield from _series("breaker", report.breakers)
    yield from _series("retries", report.retries)
    for note in report.notes:
        yield f"  note    {note}"


def _series(title: str, counted: list[Counted]) -> Iterator[str]:
    """One line for each owner: what happened to it, and how often."""
    found: dict[str, list[str]] = {}
    for each in sorted(counted, key=lambda each: (each.upstream, each.route)):
        owner = each.route or each.upstream
        found.setdefault(owner, []).append(f"{each.what} ({each.reason}) {each.count}")
    for owner, parts in found.items():
        yield f"  {title} {owner}: {', '.join(parts)}"
