"""Scenario files: what may stand there, and what is said of what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.chaos.scenario import Load, Scenario, Trouble, Written, fault_of, read_scenario
from gateway.config.issues import ConfigErrors

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "config" / "chaos").glob("*.yaml"))
GOOD = """\
name: a
load: {rate: 50/s}
phases:
  - {for: 1s}
  - {for: 2s, upstream: {orders: {latency: 2s, share: 50%}, "*": down}, store: stall}
  - {for: 3s, until: recovered}
expect:
  "*": {only_codes: [503, circuit_open, cut], recovers_within: 2s, p99: 1s}
  orders.list: {p99: 3s, no_failures_on: [hello]}
"""


def read(folder: Path, text: str) -> Written:
    file = folder / "scenario.yaml"
    file.write_text(text)
    return read_scenario(file)


def errors(folder: Path, text: str) -> list[str]:
    """What is said of a file, without its folder."""
    with pytest.raises(ConfigErrors) as caught:
        read(folder, text)
    return [str(issue).removeprefix(f"{folder}/") for issue in caught.value.issues]


def test_a_scenario_is_read(tmp_path: Path) -> None:
    """Words, shares, durations; a route's expectation stands over that of `*`, key by key."""
    scenario = read(tmp_path, GOOD).scenario
    phase = scenario.phases[1]

    assert scenario.load.per_second == 50
    assert scenario.trouble(phase, "orders") == Trouble.model_validate(
        {"latency": "2s", "share": 0.5}
    )
    assert scenario.trouble(phase, "any").down
    assert [each.is_calm for each in scenario.phases] == [True, False, True]
    assert fault_of(scenario.phases) == (1, 1)
    own = scenario.expectation("orders.list")
    assert (own.p99, own.recovers_within, own.no_failures_on) == (3.0, 2.0, ["hello"])
    assert scenario.expectation("hello").p99 == 1.0
    assert scenario.length == 6.0


@pytest.mark.parametrize("word", ["healthy", "down", "stall", "reset", "truncate"])
def test_a_word_stands_for_a_kind_of_trouble(word: str) -> None:
    """Each word alone."""
    trouble = Trouble.model_validate(word)

    assert trouble.is_healthy == (word == "healthy")
    assert word == "healthy" or getattr(trouble, word)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("latency:", "latancy:"), "scenario.yaml:5:35: phases[1].upstream.orders.latancy: "),
        (("latency:", "latancy:"), 'unknown key "latancy"; did you mean "latency"?'),
        (('"*": down', '"*": don'), 'did you mean "down"?'),
        (("circuit_open", "circuit_opened"), 'did you mean "circuit_open"?'),
        (("50/s", "50"), "write 50/s"),
        (("for: 1s", "for: 1"), "scenario.yaml:4:11: phases[0].for: "),
        (("50/s", "99999/s"), "measures this machine alone"),
        (("{rate: 50/s}", "{rate: 1/s, concurrency: 2}"), "needs rate or concurrency"),
        (("name: a", "name: a b"), "scenario.yaml:1:7: name: "),
        (("  - {for: 1s}\n", ""), "begin with a phase in which all is well"),
        (("for: 1s}", "for: 1s, until: recovered}"), "nothing has to be recovered from here"),
        (("  - {for: 3s, until: recovered}\n", ""), "there is no phase after the trouble"),
        (("latency: 2s", "down: true"), "what is down is down for every request"),
    ],
)  # fmt: skip
def test_mistakes_are_shown_where_they_are(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    """With file, line, column, the key's path, and what was probably meant."""
    assert change[0] in GOOD
    found = errors(tmp_path, GOOD.replace(*change))

    assert any(told in line for line in found), found
    assert all(line.startswith("scenario.yaml:") for line in found)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "name: [\n", "name: a\n"])
def test_what_is_no_scenario_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing at all, a list, broken YAML, half of it."""
    assert errors(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """One line that says so."""
    with pytest.raises(ConfigErrors, match="No such file"):
        read_scenario(tmp_path / "nothing.yaml")


def test_names_that_the_configuration_does_not_have(tmp_path: Path) -> None:
    """Each at its place, with the closest one there is."""
    written = read(tmp_path, GOOD + "skip: [orders.raed]\nrequests: {orders.raed: {path: /x}}\n")

    with pytest.raises(ConfigErrors) as caught:
        written.check_names(["orders.list", "orders.read"], ["order"])

    found = [(issue.line, issue.column, issue.path, issue.hint) for issue in caught.value.issues]
    assert found == [
        (5, 26, "phases[1].upstream.orders", 'did you mean "order"?'),
        (9, 43, 'expect["orders.list"].no_failures_on[0]', ""),
        (10, 8, "skip[0]", 'did you mean "orders.read"?'),
        (11, 12, 'requests["orders.raed"]', 'did you mean "orders.read"?'),
    ]
    written.check_names(["orders.list", "orders.raed", "hello"], ["orders"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_are_good_and_called_as_their_files(path: Path) -> None:
    """They name no route and no upstream, so that they fit every configuration."""
    written = read_scenario(path)

    written.check_names([], [])
    assert written.scenario.name == path.stem
    assert written.scenario.about


def test_the_standard_scenarios_are_all_there() -> None:
    """Those that the documentation promises."""
    names = {path.stem for path in SHIPPED}

    assert names >= {"slow", "down", "flapping", "resetting", "store_down", "spike"}


def test_every_key_is_described() -> None:
    """Descriptions are the format's reference; docs/chaos.md has a line for each key."""
    page = (ROOT / "docs" / "chaos.md").read_text()

    for model in (Scenario, Trouble, Load):
        for name, field in model.model_fields.items():
            assert field.description, name
            assert f"`{field.alias or name}`" in page, name
