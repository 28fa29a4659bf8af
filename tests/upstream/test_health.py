"""The verdict of active checks: rows of results, the first one, reloads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.health import Health


def test_rows() -> None:
    """Three failures in a row take it out, two passes bring it back; one in between starts anew."""
    health = Health(3, 2)
    results = ["", "a", "b", "", "a", "b", "c", "", "d", "", ""]
    seen = [health.report(result) for result in results]
    assert [index for index, changed in enumerate(seen) if changed] == [6, 10]
    assert (health.healthy, health.reason) == (True, "")


def test_the_first_result_decides() -> None:
    """A target that is down at the start gets no requests for three intervals."""
    health = Health(3, 2)
    assert health.report("refused")
    assert (health.healthy, health.reason) == (False, "refused")
    assert not health.report("")
    assert health.report("")


def test_the_newest_reason_is_told() -> None:
    """A target that fails in another way by now says so."""
    health = Health(1, 2)
    health.report("refused")
    health.report("answered 500")
    assert health.reason == "answered 500"


def test_waiting() -> None:
    """A target that was added gets nothing until its first check, which is enough."""
    health = Health(3, 3)
    health.wait()
    assert (health.healthy, health.checked) == (False, False)
    assert health.report("")
    assert (health.healthy, health.reason) == (True, "")


def test_a_reload() -> None:
    """The verdict stays; rows stay if the checks do, and else the first result decides."""
    before = Health(3, 2)
    for result in ("", "x", "x", "x", ""):
        before.report(result)
    same, other = Health(3, 2), Health(3, 2)
    same.inherit(before, same=True)
    other.inherit(before, same=False)
    assert not same.healthy
    assert not other.healthy
    assert same.report("")
    assert other.report("")


@given(
    st.integers(1, 4), st.integers(1, 4), st.lists(st.booleans(), max_size=60),
)  # fmt: skip
def test_a_verdict_needs_a_row(down: int, up: int, results: list[bool]) -> None:
    """Behind the first result, every change has a whole row of such results before it."""
    health = Health(down, up)
    for index, passed in enumerate(results):
        changed = health.report("" if passed else "bad")
        assert bool(health.reason) is not health.healthy
        if index == 0:
            assert health.healthy is passed
        elif changed:
            row = up if passed else down
            assert health.healthy is passed
            assert results[index + 1 - row : index + 1] == [passed] * row
        # Nobody stays in a state that its last results contradict.
        need = up if not health.healthy else down
        assert results[index + 1 - need : index + 1] != [not health.healthy] * need
