"""A scenario as it is written: phases of trouble, the load meanwhile, and what is expected.

Read by the configuration's own reader, so that a mistake is shown with file, line and column, and
with what was probably meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from gateway.config.base import Model
from gateway.config.issues import ConfigErrors, Issue
from gateway.config.model_route import FieldName, FieldValue
from gateway.config.nodes import Node, Path, format_path
from gateway.config.rates import SteadyRate
from gateway.config.reader import MAX_BYTES, read_yaml
from gateway.config.references import References
from gateway.config.suggest import did_you_mean
from gateway.config.types import Count, Duration, Ratio, Timeout, Whole, refuse
from gateway.config.validate import Validator
from gateway.errors import CODES

EVERY: Final = "*"
WORDS: Final = ("healthy", "down", "stall", "reset", "truncate")
# What clients may see that is no code of the gateway's: an answer that did not come, or not whole.
CLIENT_CODES: Final = ("no_answer", "cut", "gave_up", "not_connected")
MAX_RATE: Final = 2_000.0


def _code(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
        return str(value)
    if isinstance(value, str) and (value in CODES or value in CLIENT_CODES):
        return value
    hint = did_you_mean(value, [*CODES, *CLIENT_CODES]) if isinstance(value, str) else ""
    message = "expected a code of docs/errors.md, a status from 400 to 599, or one of "
    raise refuse("code", message + ", ".join(CLIENT_CODES), hint)


Code = Annotated[str, BeforeValidator(_code)]


class Trouble(Model):
    """What is wrong with an upstream. A bare word stands for one kind; nothing is healthy."""

    down: bool = Field(default=False, description="Nothing listens: connections are refused.")
    stall: bool = Field(default=False, description="Requests are taken, and never answered.")
    reset: bool = Field(
        default=False, description="The connection is reset once the request was read."
    )
    truncate: bool = Field(
        default=False, description="The answer ends in the middle, with its connection."
    )
    status: Whole | None = Field(
        default=None, ge=200, le=599, description="The status of every answer."
    )
    retry_after: Whole | None = Field(
        default=None, ge=0, description="Seconds in a Retry-After field beside that status."
    )
    latency: Duration = Field(default=0.0, description="How long an answer takes.")
    jitter: Duration = Field(default=0.0, description="Up to so much longer, at random.")
    share: Ratio = Field(default=1.0, description="The share of the requests that meet it.")
    flap: Timeout | None = Field(
        default=None, description="On and off: so long in trouble, then so long healthy."
    )
    targets: Count | None = Field(
        default=None, description="How many of the upstream's targets; all of them if left out."
    )

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in WORDS:
            hint = did_you_mean(value, WORDS)
            raise refuse("trouble", f"expected a mapping, or one of {', '.join(WORDS)}", hint)
        return {} if value == "healthy" else {value: True}

    @model_validator(mode="after")
    def _fits(self) -> Trouble:
        if self.down and self.share < 1:
            raise refuse("trouble", "what is down is down for every request", "leave share out")
        if self.retry_after is not None and self.status is None:
            raise refuse("trouble", "retry_after stands beside a status")
        return self

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.down or self.stall or self.reset or self.truncate) and (
            self.status is None and not self.latency and not self.jitter
        )


class Load(Model):
    """How clients behave: so many requests a second, whatever happens; or so many at a time."""

    rate: SteadyRate | None = Field(
        default=None,
        description="Requests a second over all routes together, sent whether or not earlier ones "
        "were answered.",
        examples=["50/s"],
    )
    concurrency: Count | None = Field(
        default=None,
        le=500,
        description="Clients, each of which sends its next request when it has its answer.",
    )

    @model_validator(mode="after")
    def _one(self) -> Load:
        if (self.rate is None) == (self.concurrency is None):
            raise refuse("load", "needs rate or concurrency, and not both")
        if self.per_second > MAX_RATE:
            raise refuse("rate", f"more than {MAX_RATE:.0f}/s measures this machine alone")
        return self

    @property
    def per_second(self) -> float:
        """The rate as a number; 0 if it is the clients' number that is given."""
        rate = self.rate
        return 0.0 if rate is None else rate.count * 1e6 / rate.period_us


class Phase(Model):
    """A stretch of time. What a phase does not name is healthy while it lasts."""

    length: Timeout = Field(alias="for", le=600.0, description="How long it lasts.")
    upstream: dict[str, Trouble] = Field(
        default={}, description="What is wrong with which upstream; * is every other one."
    )
    store: Literal["up", "down", "stall"] = Field(
        default="up", description="What is wrong with the store."
    )
    load: Load | None = Field(default=None, description="Another load while the phase lasts.")
    until: Literal["recovered"] | None = Field(
        default=None,
        description="recovered: the phase ends early, once every route has recovered.",
    )

    @property
    def is_calm(self) -> bool:
        """Whether nothing is wrong and the load is the usual one."""
        calm = all(trouble.is_healthy for trouble in self.upstream.values())
        return calm and self.store == "up" and self.load is None


class RequestConfig(Model):
    """The requests of one route. `{n}` in any text is the request's number."""

    method: str | None = Field(
        default=None, pattern=r"^[A-Z]{1,20}$", description="The method, if several match."
    )
    path: str | None = Field(
        default=None, pattern=r"^/[!-~]*$", description="Path and query.", examples=["/v1/a?b=c"]
    )
    headers: dict[FieldName, FieldValue] = Field(default={}, description="Header fields to send.")
    json_body: Any = Field(default=None, alias="json", description="The body, sent as JSON.")
    body: str | None = Field(default=None, description="The body as text.")

    @property
    def has_json(self) -> bool:
        """Whether `json` was given, which may be null."""
        return "json_body" in self.model_fields_set


class AnswerConfig(Model):
    """What the stand-in answers to a route's requests while it is healthy."""

    status: Whole = Field(default=200, ge=200, le=599, description="The status code.")
    headers: dict[FieldName, FieldValue] = Field(default={}, description="Header fields.")
    json_body: Any = Field(default=None, alias="json", description="The body, sent as JSON.")


class Expectation(Model):
    """What must hold for a route."""

    max_error_ratio: Ratio | None = Field(
        default=None, description="The share of failed requests during the fault."
    )
    only_codes: list[Code] | None = Field(
        default=None,
        description="The codes that failures may have, at any time: those of docs/errors.md; a "
        "status, for failures that the upstream answered with; no_answer, cut, gave_up, "
        "not_connected.",
    )
    p99: Timeout | None = Field(
        default=None, description="The 99th percentile of the time to the whole answer, failed or "
        "not, during the fault.",
    )  # fmt: skip
    max_amplification: float | None = Field(
        default=None,
        ge=0,
        description="Requests that the upstream saw for each that clients sent, during the fault.",
    )
    recovers_within: Duration | None = Field(
        default=None,
        description="From the end of the fault to the first window that is as good as before it.",
    )
    no_failures_on: list[str] | Literal["others"] | None = Field(
        default=None,
        description="Routes on which nothing may fail during the fault; others is every route that "
        "does not lead to what is in trouble.",
    )


class Scenario(Model):
    """One rehearsal."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Its name.")
    about: str = Field(default="", description="What it is about, for people.")
    load: Load = Field(description="What clients do.")
    phases: list[Phase] = Field(min_length=1, description="What happens, one after the other.")
    expect: dict[str, Expectation] = Field(
        default={}, description="What must hold, by route; * is for every route."
    )
    requests: dict[str, RequestConfig] = Field(
        default={}, description="What is sent, by route, where what is made up would not do."
    )
    answers: dict[str, AnswerConfig] = Field(
        default={}, description="What stand-ins answer, by route."
    )
    skip: list[str] = Field(default=[], description="Routes to leave out.")
    window: Timeout = Field(
        default=1.0, le=60.0, description="The stretch in which a route must be good to count as "
        "recovered.",
    )  # fmt: skip
    give_up: Timeout = Field(
        default=15.0, le=600.0, description="How long a client waits for an answer."
    )

    def expectation(self, route: str) -> Expectation:
        """What is expected of a route: its own keys, and those of `*` for the rest."""
        general, own = self.expect.get(EVERY), self.expect.get(route)
        if general is None or own is None:
            return own or general or Expectation()
        return general.model_copy(
            update={name: getattr(own, name) for name in own.model_fields_set}
        )

    def trouble(self, phase: Phase, upstream: str) -> Trouble:
        """What is wrong with an upstream in a phase."""
        return phase.upstream.get(upstream) or phase.upstream.get(EVERY) or Trouble()

    @property
    def length(self) -> float:
        """Seconds from the first phase's begin to the last one's end, at most."""
        return sum(phase.length for phase in self.phases)


@dataclass(frozen=True, slots=True)
class Written:
    """A scenario and where its parts were written."""

    scenario: Scenario
    root: Node

    def check_names(self, routes: Iterable[str], upstreams: Iterable[str]) -> None:
        """Raise ConfigErrors for each route or upstream that the configuration does not have."""
        known = {"route": set(routes), "upstream": set(upstreams)}
        named = [*self._routes(), *self._upstreams()]
        issues = [
            self._unknown(path, kind, name, known[kind])
            for path, kind, name in named
            if name not in known[kind] and name != EVERY
        ]
        if issues:
            raise ConfigErrors(issues)

    def _routes(self) -> Iterator[tuple[Path, str, str]]:
        """Each route that is named, and where."""
        scenario = self.scenario
        for section in ("expect", "requests", "answers"):
            for name in getattr(scenario, section):
                yield (section, name), "route", name
        for position, name in enumerate(scenario.skip):
            yield ("skip", position), "route", name
        for name, each in scenario.expect.items():
            listed = each.no_failures_on
            for position, other in enumerate(listed if isinstance(listed, list) else []):
                yield ("expect", name, "no_failures_on", position), "route", other

    def _upstreams(self) -> Iterator[tuple[Path, str, str]]:
        for position, phase in enumerate(self.scenario.phases):
            for name in phase.upstream:
                yield ("phases", position, "upstream", name), "upstream", name

    def _unknown(self, path: Path, kind: str, name: str, known: Iterable[str]) -> Issue:
        node = self.root
        for step in path[:-1]:
            node = node.value[step]
        last = path[-1]
        if isinstance(last, str):
            line, column = node.keys[last]
        else:
            line, column = node.value[last].line, node.value[last].column
        message = f'the configuration has no {kind} "{name}"'
        hint = did_you_mean(name, known)
        return Issue(node.file, line, column, format_path(path), message, hint)


def read_scenario(file: FilePath, environ: Mapping[str, str] | None = None) -> Written:
    """The scenario in a file. Raises ConfigErrors with everything that is wrong."""
    issues: list[Issue] = []
    base = file.absolute().parent
    name = os.fspath(file)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "it can't be read"
        raise ConfigErrors([Issue(name, 0, 0, "", f"the scenario's file: {reason}")]) from None
    if not data.strip():
        raise ConfigErrors([Issue(name, 0, 0, "", "the file is empty")])
    root = read_yaml(data, name, References(environ or {}, base), issues)
    scenario = None
    if root is not None:
        scenario = Validator(base, issues).validate(Scenario, root, ())
        if scenario is not None:
            _check_course(scenario, root, Validator(base, issues))
    if issues or scenario is None or root is None:
        raise ConfigErrors(issues)
    return Written(scenario, root)


def fault_of(phases: Sequence[Phase]) -> tuple[int, int] | None:
    """The first and the last phase in which something is wrong; None if nothing ever is."""
    places = [place for place, phase in enumerate(phases) if not phase.is_calm]
    return (places[0], places[-1]) if places else None


def _check_course(scenario: Scenario, root: Node, validator: Validator) -> None:
    """What can be judged needs a time before, and a time after."""
    fault = fault_of(scenario.phases)
    phases = root.value["phases"]
    if fault is not None and fault[0] == 0 and scenario.expect:
        message = "begin with a phase in which all is well: it tells what is usual"
        validator.report(phases.value[0], ("phases", 0), message)
    for place, phase in enumerate(scenario.phases):
        if phase.until is not None and (fault is None or place <= fault[1]):
            path: Path = ("phases", place, "until")
            validator.report_key(phases.value[place], path, "nothing has to be recovered from here")
    recovering = fault is None or fault[1] == len(scenario.phases) - 1
    for name, each in scenario.expect.items():
        if each.recovers_within is not None and recovering:
            path = ("expect", name, "recovers_within")
            message = "there is no phase after the trouble"
            hint = "end with {for: 30s, until: recovered}"
            validator.report_key(root.value["expect"].value[name], path, message, hint)
