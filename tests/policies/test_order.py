"""The order of policies, and how plugins anchor themselves in it."""

from __future__ import annotations

import pytest

from gateway.errors import ConfigError
from gateway.policies.base import Guard, Policy, Stage
from gateway.policies.catalog import BUILTIN
from gateway.policies.order import ADMISSION, DELIVERY, arrange


def plugin(
    name: str, *, before: str = "", after: str = "", stage: Stage = Stage.ADMISSION
) -> type[Policy]:
    """A plugin class with the given anchor."""
    return type(name, (Guard,), {"name": name, "before": before, "after": after, "stage": stage})


def test_every_builtin_policy_has_a_place_in_its_own_stage() -> None:
    """A policy missing from the list, or standing in the other stage, would never run right."""
    assert set(BUILTIN) == {*ADMISSION, *DELIVERY}
    for name, builtin in BUILTIN.items():
        line = ADMISSION if builtin.load().stage is Stage.ADMISSION else DELIVERY
        assert name in line


def test_plugins_without_an_anchor_stand_last_in_their_stage() -> None:
    """In alphabetical order, whatever that of files is; but before what answers by itself."""
    order = arrange([plugin("zeta"), plugin("alpha"), plugin("d", stage=Stage.DELIVERY)])

    assert order == [*ADMISSION[:-2], "alpha", "zeta", *ADMISSION[-2:], *DELIVERY, "d"]


def test_what_answers_by_itself_stands_last() -> None:
    """Whatever asks something of a request stands before it."""
    ends = [name for name in ADMISSION if BUILTIN[name].load().ends]

    assert ends == list(ADMISSION[-2:])


def test_plugins_stand_where_they_anchor() -> None:
    """Several at one anchor stand in alphabetical order, on the side they asked for."""
    order = arrange(
        [
            plugin("b", after="access"),
            plugin("a", after="access"),
            plugin("c", before="cors"),
        ]
    )

    position = order.index("access")
    assert order[position : position + 5] == ["access", "a", "b", "c", "cors"]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (plugin("a", before="nothing"), "nothing"),
        (plugin("a", before="timeout"), "timeout"),
        (plugin("a", before="access", after="cors"), "both before and after"),
    ],
)
def test_a_wrong_anchor_is_an_error(policy: type[Policy], message: str) -> None:
    """Unknown, of the other stage, or two at once."""
    with pytest.raises(ConfigError, match=message):
        arrange([policy])
