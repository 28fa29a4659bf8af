"""One transaction as people read it: what happened, when, and where the time went. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.delivery.audit_entry import Entry


@dataclass(frozen=True, slots=True)
class Line:
    """One step. `begins` and `ends` are seconds since the first step began; `waited` is how long
    nothing had happened of the same event before it.
    """

    begins: float
    ends: float
    waited: float
    text: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Timeline:
    """All steps, and the sums in seconds: of the work, of the waiting in between, and of it all.

    `longest` is the position of the line that took longest, its wait included.
    """

    lines: list[Line]
    worked: float
    waited: float
    total: float
    longest: int


def make_timeline(entries: Sequence[Entry]) -> Timeline:
    """The steps of a transaction, which must be in the order of time."""
    lines: list[Line] = []
    if not entries:
        return Timeline(lines, 0.0, 0.0, 0.0, -1)
    first = min(entry.at for entry in entries)
    ended: dict[tuple[str, str], float] = {}
    for entry in entries:
        begins = entry.at - first
        ends = begins + entry.ms / 1000
        waited = begins - _since(ended, entry, begins)
        ended[entry.event, entry.target] = ends
        lines.append(Line(begins, ends, max(0.0, waited), _text(entry), entry))
    total = max(line.ends for line in lines)
    costs = [line.waited + line.ends - line.begins for line in lines]
    longest = max(range(len(costs)), key=costs.__getitem__)
    worked = sum(line.ends - line.begins for line in lines)
    return Timeline(lines, worked, sum(line.waited for line in lines), total, longest)


def _since(ended: dict[tuple[str, str], float], entry: Entry, begins: float) -> float:
    """When the step before it, of the same event and target, had ended."""
    for key in ((entry.event, entry.target), (entry.event, "")):
        if entry.event and key in ended:
            return ended[key]
    return begins


def _text(entry: Entry) -> str:
    match entry.kind:
        case "accepted":
            return f"accepted {_where(entry)} for {', '.join(entry.targets)}"
        case "quarantined":
            return f"quarantined {_where(entry)}: its payload is invalid"
        case "attempt":
            return f"attempt {entry.attempt} to {entry.target}: {_outcome(entry)}"
        case "step":
            return f"step {entry.step or entry.target}: {_outcome(entry)}"
        case "call":
            return f"call {entry.method} {entry.route}: {_outcome(entry)}"
        case "replayed":
            return f"replayed to {entry.target}{_by(entry)}, as epoch {entry.epoch}"
        case _:
            return f"{entry.kind} {entry.target}{_by(entry)}".rstrip()


def _where(entry: Entry) -> str:
    origin = "" if entry.origin in ("", "request") else f" from {entry.origin}"
    return f"by {entry.route}{origin}"


def _by(entry: Entry) -> str:
    return f" by {entry.by}" if entry.by else ""


def _outcome(entry: Entry) -> str:
    met = str(entry.status) if entry.status else entry.code
    text = " ".join(part for part in (entry.verdict, met) if part)
    if entry.code and entry.status:
        text += f" ({entry.code})"
    if entry.reason:
        text += f", dead letter: {entry.reason}"
    if entry.due_in:
        text += f", again in {seconds(entry.due_in)}"
    if entry.detail:
        text += f": {entry.detail}"
    return text


def seconds(value: float) -> str:
    """A duration, short: 4.2 ms, 1.50 s, 3 m 20 s, 2 h 5 m."""
    if value < 1:
        return f"{value * 1000:.1f} ms"
    if value < 60:
        return f"{value:.2f} s"
    if value < 3600:
        return f"{int(value // 60)} m {int(value % 60)} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60)} m"


def render(timeline: Timeline, correlation_id: str) -> list[str]:
    """Lines of text: the moment, the step, and the waits; `<` marks where most of the time went."""
    lines = timeline.lines
    if not lines:
        return [f"nothing is known of {correlation_id}"]
    begin = datetime.fromtimestamp(lines[0].entry.at, UTC).isoformat(timespec="milliseconds")
    events = list(dict.fromkeys(line.entry.event for line in lines if line.entry.event))
    shown = [f"transaction {correlation_id}, began {begin}"]
    for name in events:
        key = next((line.entry.key for line in lines if line.entry.event == name), "")
        shown.append(f"event {name}" + (f", idempotency key {key}" if key != name else ""))
    shown.append("")
    for position, line in enumerate(lines):
        took = seconds(line.ends - line.begins) if line.entry.ms else ""
        waited = f"waited {seconds(line.waited)}" if line.waited >= 0.001 else ""
        spent = ", ".join(part for part in (waited, f"took {took}" if took else "") if part)
        mark = "  < most of the time" if position == timeline.longest and spent else ""
        ours = f"  [{spent}]{mark}" if spent else ""
        shown.append(f"+{line.begins:10.3f} s  {line.text}{ours}")
    sums = f"{seconds(timeline.worked)} of work, {seconds(timeline.waited)} of waiting"
    shown += ["", f"{seconds(timeline.total)} in all: {sums}"]
    return shown
