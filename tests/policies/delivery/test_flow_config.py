"""What is refused in a flow when the configuration is loaded, and where."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from gateway.config.loader import ConfigErrors
from gateway.errors import ConfigError
from gateway.policies.delivery.flow_config import StepConfig, needs_of
from tests.support.gateway import load, run_gateway


def text(flow: str, delivery: str = "") -> str:
    return f"""\
store: {{url: "unix:///nowhere.sock"}}
upstreams:
  api: {{targets: ["http://127.0.0.1:1"]}}
routes:
  - name: orders
    match: {{path: "/orders/{{region}}"}}
    upstream: api
    delivery:
      {delivery}
      flow:
{textwrap.indent(flow, " " * 8)}
"""


REFUSED = [
    ("- {name: A}", "flow[0].name", "lower-case letters"),
    ("- {name: in}", "flow[0].name", "can't name a step"),
    ("- {name: a}\n- {name: a}", "flow", 'two steps are called "a"'),
    ("- {name: a, body: {x: =steps.b.body}}\n- {name: b}", "flow", 'names "b", which is no step'),
    ("- {name: a, when: steps.a.status == 200}", "flow", 'step "a": when names "a"'),
    ("- {name: a, params: {x: =steps.z.status}, path: '/{x}'}", "flow", "params names"),
    (
        "- {name: a, compensate: {body: =steps.b.body}}\n- {name: b}",
        "flow", 'compensate.body names "b"',
    ),
    ("- {name: a, body: =steps}", "flow[0].body", "name the step"),
    ("- {name: a, body: '=steps[\"a\"]'}", "flow[0].body", "name the step"),
    ("- {name: a, body: '=claims.sub'}", "flow[0].body", 'unknown name "claims"'),
    ("- {name: a, when: 'body.x =='}", "flow[0].when", "not a CEL expression"),
    ("- {name: a, wait: 1s, upstream: api}", "flow[0]", "a wait has no upstream"),
    ("- {name: a, wait: 1s, compensate: {path: /x}}", "flow[0]", "a wait has no compensate"),
    ("- {name: a, wait: soon}", "flow[0].wait", "expected a duration"),
    ("- {name: a, wait: 0s}", "flow[0].wait", "more than zero"),
    ("- {name: a, wait: 2d}", "", "the waits of the flow take 2d"),
    ("- {name: a, method: POST, until: steps.a.status == 200}", "flow[0]", "only GET and HEAD"),
    ("- {name: a, headers: {Host: x}}", "flow[0].headers", "the gateway writes Host itself"),
    ("- {name: a, expect: [42]}", "flow[0].expect[0]", ""),
    ("- {name: a, retry: {schedule: [1s], backoff: {}}}", "flow[0].retry", "can't both be given"),
    ("[]", "flow", ""),
]  # fmt: skip


@pytest.mark.parametrize(("flow", "where", "what"), REFUSED)
def test_what_can_t_work_is_refused(tmp_path: Path, flow: str, where: str, what: str) -> None:
    """With the place and the reason."""
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, text(flow))

    (issue,) = caught.value.issues
    assert issue.path == f"routes[0].delivery.{where}".rstrip(".")
    assert what in issue.message


BUILT = [
    ("- {name: a, upstream: apis}", "flow[0].upstream", 'there is no upstream "apis"'),
    ("- {name: a, path: '/x/{id}'}", "flow[0].path", "{id} is no parameter of /orders/{region}"),
    ("- {name: a, path: '/x/{rest:path}'}", "flow[0].path", "{rest} is no parameter"),
    ("- {name: a, path: '/x/v{id}'}", "flow[0].path", "is no parameter; a parameter is a whole"),
    ("- {name: a, path: /x, params: {id: a}}", "flow[0].params.id", "the path has no {id}"),
    ("- {name: a, params: {id: a}}", "flow[0].params", "there is no path"),
    (
        "- {name: a, compensate: {upstream: apis}}",
        "flow[0].compensate.upstream", 'there is no upstream "apis"',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("flow", "where", "what"), BUILT)
async def test_what_names_nothing_is_refused(
    tmp_path: Path, flow: str, where: str, what: str
) -> None:
    """Upstreams and parameters that are not there."""
    with pytest.raises(ConfigError) as caught:
        async with run_gateway(tmp_path, text(flow)):
            pass

    assert what in str(caught.value)
    assert where in str(caught.value) or where in caught.value.path


def test_a_target_can_t_be_called_like_the_flow(tmp_path: Path) -> None:
    """Its queue would be the same."""
    with pytest.raises(ConfigErrors, match='"flow" is the name of the flow'):
        load(tmp_path, text("- {name: a}", "to: [{name: flow}]"))


def test_only_what_is_needed_of_answers_is_kept() -> None:
    """By later steps, by compensations, and by the conditions of both."""
    flow = [
        StepConfig.model_validate(each)
        for each in (
            {"name": "a", "compensate": {"body": "=steps.a.headers.location"}},
            {"name": "b", "body": {"x": "=steps.a.body.id"}, "when": "steps.a.status == 201"},
            {"name": "c", "method": "GET", "until": "steps.c.body.x == 'steps.b.body'"},
            {"name": "d", "wait": "=steps.b.status"},
            {"name": "e", "body": ["=body.steps.c", "==steps.c", {"y": "=steps.d"}]},
        )
    ]

    assert needs_of(flow) == {
        "a": {"body", "headers"},
        "b": frozenset(),
        "c": frozenset(),
        "d": {"body", "headers"},
        "e": frozenset(),
    }


def test_the_example_of_the_documentation_is_right(tmp_path: Path) -> None:
    """It loads, with the upstreams that it names."""
    page = (Path(__file__).parents[3] / "docs/flows.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    names = ("shop", "stock", "billing")
    upstreams = "".join(f'  {name}: {{targets: ["http://127.0.0.1:1"]}}\n' for name in names)

    loaded = load(tmp_path, f"upstreams:\n{upstreams}{example}")

    route, _ = loaded.configuration.gateway.routes
    assert set(route.elsewhere) == set(names)
