"""A transaction as people read it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.audit_entry import Entry
from gateway.delivery.timeline import make_timeline, render, seconds

C = "c-1"


def way() -> list[Entry]:
    """Accepted, tried in vain, tried again 5 s later, given up, replayed, delivered."""
    return [
        Entry(100.0, "accepted", "orders", C, "e1", targets=["crm"], key="k1"),
        Entry(100.01, "attempt", "orders", C, "e1", target="crm", attempt=1, verdict="retried",
              status=503, ms=40, due_in=5.0),
        Entry(105.05, "attempt", "orders", C, "e1", target="crm", attempt=2, verdict="dead",
              status=400, ms=10, reason="permanent"),
        Entry(200.0, "replayed", "orders", C, "e1", target="crm", epoch=2, by="ana"),
        Entry(200.1, "attempt", "orders", C, "e1", target="crm", attempt=1, epoch=2,
              verdict="delivered", status=200, ms=20),
    ]  # fmt: skip


def test_waits_lie_between_steps_of_one_target() -> None:
    """From the end of the step before, of the same event and target, to the beginning."""
    timeline = make_timeline(way())
    assert [round(line.waited, 3) for line in timeline.lines] == [0.0, 0.01, 5.0, 94.94, 0.1]
    assert timeline.longest == 3
    assert round(timeline.worked, 3) == 0.07
    assert round(timeline.total, 3) == 100.12


def test_what_is_shown() -> None:
    """Moments, steps, waits, where most of the time went, the event's idempotency key."""
    lines = render(make_timeline(way()), C)
    text = "\n".join(lines)
    assert "event e1, idempotency key k1" in text
    assert "attempt 1 to crm: retried 503, again in 5.00 s  [waited 10.0 ms, took 40.0 ms]" in text
    assert "attempt 2 to crm: dead 400, dead letter: permanent" in text
    marked = [line for line in lines if line.endswith("< most of the time")]
    assert len(marked) == 1
    assert "replayed to crm by ana, as epoch 2" in marked[0]
    assert lines[-1] == "1 m 40 s in all: 70.0 ms of work, 1 m 40 s of waiting"


def test_nothing_is_known() -> None:
    """Of a transaction that the audit has not, or no longer."""
    assert render(make_timeline([]), C) == ["nothing is known of c-1"]


def test_calls_of_synchronous_routes_stand_among_the_rest() -> None:
    """They have no event: nothing waits for them."""
    entries = [Entry(1.0, "call", "read", C, method="GET", status=502, code="upstream_reset", ms=5)]
    timeline = make_timeline(entries)
    assert timeline.lines[0].text == "call GET read: 502 (upstream_reset)"
    assert timeline.lines[0].waited == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e5)), min_size=1, max_size=20))
def test_sums_are_of_the_lines(steps: list[tuple[float, float]]) -> None:
    """No wait is negative, and the whole is as long as its longest line reaches."""
    entries = [Entry(at, "attempt", "r", C, "e", target="t", ms=ms) for at, ms in sorted(steps)]
    timeline = make_timeline(entries)
    assert all(line.waited >= 0 for line in timeline.lines)
    assert timeline.total == max(line.ends for line in timeline.lines)
    assert 0 <= timeline.longest < len(entries)


def test_durations_are_short() -> None:
    """Two parts at most."""
    found = [seconds(each) for each in (0.0042, 1.5, 200.0, 7500.0)]
    assert found == ["4.2 ms", "1.50 s", "3 m 20 s", "2 h 5 m"]
