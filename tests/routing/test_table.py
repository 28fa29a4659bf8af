"""Which route wins, what is 404, 405 and ambiguous, and which tables can't be built."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model_route import MatchConfig
from gateway.message import Headers
from gateway.routing.path import PathError, normalise
from gateway.routing.table import Entry, Match, RouteErrors, RouteTable, host_name

NO_HEADERS = Headers([])


def table(*routes: dict[str, Any]) -> RouteTable[str]:
    """A table of routes whose value is their name; a route without a name is called by its path."""
    entries = []
    for fields in routes:
        match = dict(fields)
        name = match.pop("name", match["path"])
        entries.append(Entry(name, MatchConfig(**match), name))
    return RouteTable.build(entries)


def find(
    routes: RouteTable[str], path: str, method: str = "GET", host: str = "", **headers: str
) -> Match[str]:
    """Match a request; header names are given with `_` for `-`."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return routes.match(host, path, method, Headers(raw))


def preflight(routes: RouteTable[str], path: str, method: str, headers: str = "") -> Match[str]:
    """Match a CORS preflight that asks for `method` and announces `headers`."""
    fields = {"origin": "https://a", "access_control_request_method": method}
    if headers:
        fields["access_control_request_headers"] = headers
    return find(routes, path, "OPTIONS", **fields)


def test_literal_before_parameter_before_rest() -> None:
    """Segment by segment, a literal wins over a parameter, and that over the rest of the path."""
    routes = table(
        {"path": "/{rest:path}"},
        {"path": "/v1/{id}"},
        {"path": "/v1/special"},
        {"path": "/v1/{a}/{b}"},
        {"path": "/v1/special/{b}"},
        {"path": "/v1/{rest:path}"},
    )

    assert find(routes, "/v1/special").value == "/v1/special"
    assert find(routes, "/v1/42").value == "/v1/{id}"
    assert find(routes, "/v1/special/x").value == "/v1/special/{b}"
    assert find(routes, "/v1/x/y").value == "/v1/{a}/{b}"
    assert find(routes, "/v1/x/y/z").value == "/v1/{rest:path}"
    assert find(routes, "/v1/").value == "/v1/{rest:path}"
    assert find(routes, "/v2").value == "/{rest:path}"
    assert find(routes, "/").value == "/{rest:path}"


def test_backtracking() -> None:
    """A literal that leads nowhere gives way to a parameter further up."""
    routes = table(
        {"path": "/a/{x}/c/d"},
        {"path": "/a/b/{y}/e"},
        {"path": "/{z}/b/c/f"},
        {"path": "/a/{rest:path}"},
    )

    assert find(routes, "/a/b/c/d").value == "/a/{x}/c/d"
    assert find(routes, "/a/b/c/e").params == {"y": "c"}
    assert find(routes, "/a/b/c/f").value == "/a/{rest:path}"
    assert find(routes, "/q/b/c/f").value == "/{z}/b/c/f"
    assert find(routes, "/a/b/c/g").params == {"rest": "b/c/g"}


def test_case_and_final_slash_matter() -> None:
    """Paths are compared byte by byte."""
    routes = table({"path": "/Orders"}, {"path": "/v/{id}"})

    assert find(routes, "/orders").value is None
    assert find(routes, "/Orders/").value is None
    assert find(routes, "/v/1/").value is None
    assert find(routes, "/v/").value is None
    assert find(routes, "/v").value is None


def test_hosts() -> None:
    """An exact host wins over the longest wildcard, and that over no host."""
    routes = table(
        {"name": "any", "path": "/x"},
        {"name": "wide", "path": "/x", "host": "*.internal"},
        {"name": "narrow", "path": "/x", "host": "*.eu.internal"},
        {"name": "exact", "path": "/x", "host": "api.eu.internal"},
        {"name": "v6", "path": "/x", "host": "[::1]"},
    )
    expected = {
        "api.eu.internal": "exact",
        "b.eu.internal": "narrow",
        "a.b.eu.internal": "narrow",
        "eu.internal": "wide",
        "x.internal": "wide",
        "internal": "any",
        "other": "any",
        "": "any",
        "[::1]": "v6",
    }

    assert {host: find(routes, "/x", host=host).value for host in expected} == expected


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b"api.internal", "api.internal"),
        (b"API.Internal:8080", "api.internal"),
        (b"api.internal.", "api.internal"),
        (b"api.internal.:80", "api.internal"),
        (b"[2001:DB8::1]:80", "[2001:db8::1]"),
        (b"[::1]", "[::1]"),
        (b"", ""),
    ],
)
def test_host_name(field: bytes, name: str) -> None:
    """Case, port and the root's dot make no difference."""
    assert host_name(field) == name


def test_hosts_are_remembered_within_bounds() -> None:
    """Endless different hosts get the right answer and don't fill the memory."""
    routes = table({"path": "/x", "host": "*.internal"}, {"path": "/y"})

    for number in range(3000):
        assert find(routes, "/x", host=f"h{number}.internal").value == "/x"
    assert len(routes._chains) <= 1024
    assert find(routes, "/y", host="a." * 15_000 + "internal").value == "/y"
    assert find(routes, "/x", host="a." * 15_000 + "internal").value is None


def test_falls_through_to_less_specific_hosts() -> None:
    """A route without a host serves hosts that other routes name, too."""
    routes = table(
        {"path": "/healthz"},
        {"path": "/v1/{id}", "host": "api.internal", "methods": ["GET"]},
        {"name": "post", "path": "/v1/{id}", "methods": ["POST"]},
    )

    assert find(routes, "/healthz", host="api.internal").value == "/healthz"
    assert find(routes, "/v1/1", "POST", host="api.internal").value == "post"
    assert find(routes, "/v1/1", "PUT", host="api.internal").allowed == ["GET", "HEAD", "POST"]


def test_methods() -> None:
    """A route that names the method wins over one that takes any."""
    routes = table(
        {"name": "any", "path": "/x"},
        {"name": "write", "path": "/x", "methods": ["POST", "PUT"]},
    )

    assert find(routes, "/x", "PUT").value == "write"
    assert find(routes, "/x", "GET").value == "any"
    assert find(routes, "/x", "PURGE").value == "any"


def test_head_follows_get() -> None:
    """HEAD goes to the GET route unless one names HEAD, and before one that takes any."""
    routes = table(
        {"name": "any", "path": "/x"},
        {"name": "get", "path": "/x", "methods": ["GET"]},
        {"name": "get-y", "path": "/y", "methods": ["GET"]},
        {"name": "head-y", "path": "/y", "methods": ["HEAD"]},
    )

    assert find(routes, "/x", "HEAD").value == "get"
    assert find(routes, "/y", "HEAD").value == "head-y"
    assert find(routes, "/y", "GET").value == "get-y"


def test_a_literal_with_other_methods_leaves_them_to_a_parameter() -> None:
    """A more specific path that does not take the method is no obstacle."""
    routes = table(
        {"path": "/v/special", "methods": ["GET"]}, {"path": "/v/{id}", "methods": ["POST"]}
    )

    assert find(routes, "/v/special", "POST").params == {"id": "special"}
    assert find(routes, "/v/special", "PUT").allowed == ["GET", "HEAD", "POST"]


def test_not_found_and_not_allowed() -> None:
    """Without a route 404; with one but for the method 405, all methods named in order."""
    routes = table(
        {"name": "r", "path": "/x/{id}", "methods": ["PUT", "GET"]},
        {"name": "d", "path": "/x/{id}", "methods": ["DELETE"], "headers": {"X-Admin": "1"}},
    )

    missing = find(routes, "/y")
    assert (missing.value, missing.allowed, missing.ambiguous) == (None, [], False)
    assert find(routes, "/x/1", "POST").allowed == ["GET", "HEAD", "PUT"]
    assert find(routes, "/x/1", "POST", x_admin="1").allowed == ["DELETE", "GET", "HEAD", "PUT"]
    assert find(routes, "/x/1", "get").allowed == ["GET", "HEAD", "PUT"]


def test_header_conditions() -> None:
    """The route with more conditions that hold wins; one that does not hold does not match."""
    routes = table(
        {"name": "plain", "path": "/x"},
        {"name": "beta", "path": "/x", "headers": {"X-Beta": "1"}},
        {"name": "both", "path": "/x", "headers": {"X-Beta": "1", "X-Tenant": "a"}},
        {"name": "only", "path": "/y", "headers": {"X-Beta": "1"}},
    )

    assert find(routes, "/x").value == "plain"
    assert find(routes, "/x", x_beta="1").value == "beta"
    assert find(routes, "/x", x_beta="2").value == "plain"
    assert find(routes, "/x", x_beta="1", x_tenant="a").value == "both"
    assert find(routes, "/y").value is None
    assert find(routes, "/y").allowed == []


def test_a_field_sent_twice_holds_no_condition() -> None:
    """Two values of a field could be read either way, so neither selects the route."""
    routes = table({"path": "/x", "headers": {"X-Beta": "1"}})

    for values in (["1", "2"], ["2", "1"]):
        headers = Headers([(b"x-beta", value.encode()) for value in values])
        assert routes.match("", "/x", "GET", headers).value is None
    twice = Headers([(b"x-beta", b"1"), (b"x-beta", b"1")])
    assert routes.match("", "/x", "GET", twice).value == "/x"


def test_method_goes_before_headers() -> None:
    """Naming the method counts for more than a header condition."""
    routes = table(
        {"name": "named", "path": "/x", "methods": ["GET"]},
        {"name": "any", "path": "/x", "headers": {"X-Beta": "1"}},
    )

    assert find(routes, "/x", x_beta="1").value == "named"
    assert find(routes, "/x", "POST", x_beta="1").value == "any"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"path": "/x"}, {"path": "/x"}),
        ({"path": "/x/{a}"}, {"path": "/x/{b}"}),
        ({"path": "/%78"}, {"path": "/x"}),
        ({"path": "/x", "methods": ["GET", "PUT"]}, {"path": "/x", "methods": ["PUT"]}),
        ({"path": "/x", "headers": {"A": "1"}}, {"path": "/x", "headers": {"a": "1"}}),
        ({"path": "/x", "headers": {"A": "1"}}, {"path": "/x", "headers": {"B": "1"}}),
        ({"path": "/x", "host": "A.internal"}, {"path": "/x", "host": "a.internal"}),
        ({"path": "/x", "host": "*"}, {"path": "/x"}),
    ],
)
def test_routes_that_cannot_be_told_apart(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Two routes that one request could match equally well are an error naming both."""
    with pytest.raises(RouteErrors) as caught:
        table({"name": "one", **first}, {"name": "two", **second})

    (issue,) = caught.value.issues
    assert issue.route == "two"
    assert issue.key == "match"
    assert "one" in issue.message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"path": "/x"}, {"path": "/x/"}),
        ({"path": "/x", "methods": ["GET"]}, {"path": "/x", "methods": ["PUT"]}),
        ({"path": "/x", "methods": ["GET"]}, {"path": "/x", "methods": ["HEAD"]}),
        ({"path": "/x", "methods": ["GET"]}, {"path": "/x"}),
        ({"path": "/x", "headers": {"A": "1"}}, {"path": "/x", "headers": {"A": "2"}}),
        ({"path": "/x", "headers": {"A": "1"}}, {"path": "/x"}),
        ({"path": "/x", "host": "a"}, {"path": "/x", "host": "b"}),
        ({"path": "/{a}/x"}, {"path": "/x/{a}"}),
    ],
)
def test_routes_that_differ(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Routes that no request matches equally well are fine."""
    table({"name": "one", **first}, {"name": "two", **second})


def test_all_errors_at_once() -> None:
    """One build reports every route that is wrong."""
    with pytest.raises(RouteErrors) as caught:
        table(
            {"name": "a", "path": "/v{id}"},
            {"name": "b", "path": "/x"},
            {"name": "c", "path": "/x"},
            {"name": "d", "path": "/x"},
            {"name": "e", "path": "/a//b"},
        )

    assert [(issue.route, issue.key) for issue in caught.value.issues] == [
        ("a", "match.path"),
        ("e", "match.path"),
        ("c", "match"),
        ("d", "match"),
    ]


def test_parameters_are_decoded_and_kept_raw() -> None:
    """Policies get text; the rewrite gets what stood in the path."""
    match = find(table({"path": "/x/{id}"}), "/x/a%2Fb%20c")

    assert match.params == {"id": "a/b c"}
    assert match.raw_params == {"id": "a%2Fb%20c"}


@pytest.mark.parametrize(
    "path",
    [
        "/public/..%2Fadmin",
        "/public/%252e%252e%252Fadmin",
        "/public/..;/admin",
        "/public/x%5C..%5C..%5Cadmin",
        "/admin;x",
        "/admin%3Bx",
        "/admin%3Fx",
        "/admin%2500x",
        "/%2561dmin",
        "/items/a%2Fsecret",
        "/items/a%252Fsecret",
        "/items/a%5Csecret",
        "/items/%2Fblocked",
        "/tenants/mine%2Ffiles/x",
        "/tenants/%2Fmine/x",
    ],
)
def test_ambiguous_paths(path: str) -> None:
    """A path that a sloppy upstream could read as another request is refused."""
    routes = table(
        {"path": "/public/{rest:path}"},
        {"path": "/{page}"},
        {"path": "/admin"},
        {"path": "/items/{id}"},
        {"path": "/items/{id}/secret", "methods": ["DELETE"]},
        {"path": "/tenants/{tenant}/{rest:path}"},
    )
    match = find(routes, path)

    assert match.ambiguous
    assert match.value is None


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/items/a%2Fb", {"id": "a/b"}),
        ("/items/a;v=1", {"id": "a;v=1"}),
        ("/items/100%25", {"id": "100%"}),
        ("/items/what%3F", {"id": "what?"}),
        ("/items/a%5Cb", {"id": "a\\b"}),
        ("/files/a%2Fb/c", {"rest": "a/b/c"}),
        ("/files/a;b/c", {"rest": "a;b/c"}),
    ],
)
def test_harmless_escapes_pass(path: str, params: dict[str, str]) -> None:
    """An escape that leads to no other route is data, and is forwarded as it was."""
    routes = table({"path": "/items/{id}"}, {"path": "/files/{rest:path}"}, {"path": "/"})
    match = find(routes, path)

    assert not match.ambiguous
    assert match.params == params


def test_a_shadow_on_the_same_route_passes() -> None:
    """What a plain request could reach through the same route needs no hiding."""
    routes = table({"path": "/{page}", "methods": ["GET"]}, {"path": "/admin", "methods": ["POST"]})

    assert find(routes, "/admin").value == "/{page}"
    assert find(routes, "/admin;x").value == "/{page}"
    assert find(routes, "/admin%2Fx").value == "/{page}"


def test_no_route_is_no_ambiguity() -> None:
    """What matches no route is 404, however it could be read: it is not forwarded."""
    match = find(table({"path": "/a/b"}), "/a%2Fb")

    assert (match.value, match.ambiguous) == (None, False)


def test_preflight_goes_to_the_route_it_asks_about() -> None:
    """A preflight matches by the method it announces, and is marked as not the route's own."""
    routes = table(
        {"name": "read", "path": "/x", "methods": ["GET"]},
        {"name": "write", "path": "/x", "methods": ["PUT"]},
        {"name": "catch-all", "path": "/{rest:path}"},
        {"name": "own", "path": "/y", "methods": ["OPTIONS"]},
        {"name": "other", "path": "/y", "methods": ["GET"]},
    )

    match = preflight(routes, "/x", "PUT")
    assert (match.value, match.preflight, match.allowed) == ("write", True, ["PUT"])
    match = preflight(routes, "/x", "GET")
    assert (match.value, match.preflight, match.allowed) == ("read", True, ["GET", "HEAD"])
    match = preflight(routes, "/x", "DELETE")
    assert (match.value, match.preflight) == ("catch-all", False)
    match = preflight(routes, "/y", "GET")
    assert (match.value, match.preflight) == ("own", False)


def test_preflight_without_a_route() -> None:
    """A preflight for a method nobody takes is 405, for an unknown path 404."""
    routes = table({"path": "/x/{id}", "methods": ["GET"]})

    assert preflight(routes, "/x/1", "PUT").allowed == ["GET", "HEAD"]
    assert preflight(routes, "/y", "PUT").allowed == []


def test_preflight_announces_header_conditions() -> None:
    """A condition holds in a preflight if the real request will carry the field."""
    routes = table({"path": "/x", "methods": ["GET"], "headers": {"X-Beta": "1"}})

    assert preflight(routes, "/x", "GET", "content-type, x-beta").value == "/x"
    assert preflight(routes, "/x", "GET").value is None


def test_preflight_with_an_ambiguous_path() -> None:
    """A preflight is held to the same reading of paths."""
    routes = table({"path": "/{page}", "methods": ["GET"]}, {"path": "/admin", "methods": ["GET"]})

    assert preflight(routes, "/admin;x", "GET").ambiguous
    assert preflight(routes, "/a;x", "GET").preflight


def test_options_without_origin_is_no_preflight() -> None:
    """OPTIONS is a method like others unless it is a preflight."""
    routes = table({"path": "/x", "methods": ["GET"]})

    assert find(routes, "/x", "OPTIONS").allowed == ["GET", "HEAD"]
    assert find(routes, "/x", "OPTIONS", origin="https://a").allowed == ["GET", "HEAD"]


def test_describe() -> None:
    """The table prints itself by host and path, in the order in which routes are tried."""
    routes = table(
        {"name": "rest", "path": "/{rest:path}"},
        {"name": "wide", "path": "/x", "host": "*.internal"},
        {"name": "narrow", "path": "/x", "host": "*.eu.internal"},
        {"name": "exact", "path": "/x", "host": "api.internal", "methods": ["PUT", "GET"]},
        {"name": "beta", "path": "/x", "host": "api.internal", "headers": {"X-Beta": "1"}},
    )

    assert [tuple(line) for line in routes.describe()] == [
        ("exact", "api.internal", "/x", ("GET", "PUT"), ()),
        ("beta", "api.internal", "/x", (), (("x-beta", "1"),)),
        ("narrow", "*.eu.internal", "/x", (), ()),
        ("wide", "*.internal", "/x", (), ()),
        ("rest", "*", "/{rest:path}", (), ()),
    ]


def test_many_routes() -> None:
    """Ten thousand routes build, and each is found."""
    routes = table(
        *({"path": f"/v1/s{n}/x/{{id}}", "methods": ["GET"]} for n in range(5000)),
        *({"path": f"/v1/s{n}/health", "methods": ["GET"]} for n in range(5000)),
    )

    assert find(routes, "/v1/s4321/x/7").params == {"id": "7"}
    assert find(routes, "/v1/s4999/health").value == "/v1/s4999/health"


SEGMENTS = ["a", "b", "{p}", "c"]
templates = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4)


def matches(template: list[str], path: list[str]) -> bool:
    """Whether a template matches, segment by segment: the plain way to say it."""
    return len(template) == len(path) and all(
        part == "{p}" or part == segment for part, segment in zip(template, path, strict=True)
    )


@given(
    st.lists(templates, max_size=12, unique_by=tuple),
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_agrees_with_the_plain_rule(
    shapes: list[list[str]], path: list[str], rng: random.Random
) -> None:
    """The tree finds what comparing with every template would, in whatever order they came."""
    rng.shuffle(shapes)
    named = []
    for shape in shapes:
        parts = [f"{{p{n}}}" if part == "{p}" else part for n, part in enumerate(shape)]
        named.append((shape, "/" + "/".join(parts)))
    routes = table(*({"path": text} for _, text in named))
    hits = [(shape, text) for shape, text in named if matches(shape, path)]
    best = min(hits, key=lambda hit: [part == "{p}" for part in hit[0]], default=None)

    assert find(routes, "/" + "/".join(path)).value == (best[1] if best else None)


@given(
    st.lists(st.sampled_from(["a", "/", "%2F", ";x", "%252e", "..", "%2e", "secret"]), max_size=7)
)
def test_a_literal_route_is_not_reached_by_another_spelling(pieces: list[str]) -> None:
    """What decodes to a guarded literal path is that route, refused, or not forwarded as such."""
    routes = table({"name": "open", "path": "/a/{x}"}, {"name": "guarded", "path": "/a/secret/a"})
    try:
        path = normalise(("/" + "".join(pieces)).encode())
    except PathError:
        return
    match = find(routes, path)

    if match.value == "open":
        assert path.count("/") == 2
        assert "secret/a" not in match.params["x"]
