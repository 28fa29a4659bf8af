"""Operations by path, and bodies by media type."""

from __future__ import annotations

import time

import pytest

from gateway.contracts.media import FORM, JSON, OTHER, TEXT, MediaTable, parse
from gateway.contracts.paths import BadTemplate, PathTrie, compatible

TEMPLATES = [
    "/",
    "/orders",
    "/orders/",
    "/orders/{id}",
    "/orders/mine",
    "/orders/{id}/lines/{line}",
    "/orders/mine/lines/{line}",
    "/files/{name}.{ext}",
    "/files/{name}.json",
    "/files/{name}",
    "/a b/{x}",
    "/caf\u00e9",
    "/{any}/deep/{x}",
    "/compare/{a}...{b}",
]


@pytest.fixture(scope="module")
def trie() -> PathTrie[str]:
    """All of these, each leading to itself."""
    made: PathTrie[str] = PathTrie()
    for template in TEMPLATES:
        assert made.add(template, template)
    return made


@pytest.mark.parametrize(
    ("path", "template", "params"),
    [
        ("/", "/", {}),
        ("/orders", "/orders", {}),
        ("/orders/", "/orders/", {}),
        ("/orders/7", "/orders/{id}", {"id": "7"}),
        ("/orders/mine", "/orders/mine", {}),
        ("/orders/a%2Fb", "/orders/{id}", {"id": "a%2Fb"}),
        ("/orders/7/lines/8", "/orders/{id}/lines/{line}", {"id": "7", "line": "8"}),
        ("/orders/mine/lines/8", "/orders/mine/lines/{line}", {"line": "8"}),
        ("/files/a", "/files/{name}", {"name": "a"}),
        ("/files/a.b.c", "/files/{name}.{ext}", {"name": "a", "ext": "b.c"}),
        ("/files/.hidden", "/files/{name}", {"name": ".hidden"}),
        ("/a%20b/1", "/a b/{x}", {"x": "1"}),
        ("/caf%C3%A9", "/caf\u00e9", {}),
        # A concrete segment that leads nowhere is left again.
        ("/orders/deep/1", "/{any}/deep/{x}", {"any": "orders", "x": "1"}),
        ("/compare/main...dev", "/compare/{a}...{b}", {"a": "main", "b": "dev"}),
    ],
)
def test_found(trie: PathTrie[str], path: str, template: str, params: dict[str, str]) -> None:
    """The most concrete template, with its parameters as they stand in the path."""
    assert trie.find(path) == (template, params)


@pytest.mark.parametrize("path", ["/order", "/orders//7", "/orders/7/", "/orders/7/lines", "/x/y"])
def test_not_found(trie: PathTrie[str], path: str) -> None:
    """A path is that path, final slash and all; no parameter is empty."""
    assert trie.find(path) is None


def test_equal_templates_are_told() -> None:
    """Parameters have names, but not for matching."""
    made: PathTrie[int] = PathTrie()

    assert made.add("/a/{x}", 1)
    assert not made.add("/a/{y}", 2)
    assert made.add("/a", 3)
    assert not made.add("/a", 4)
    assert sorted(made.values()) == [1, 3]


@pytest.mark.parametrize("template", ["orders", "/{a}{b}{c}{d}", "/x{", "/x}y", "/\x01", "/%zz"])
def test_bad_templates(template: str) -> None:
    """What can't be matched is said so."""
    with pytest.raises(BadTemplate):
        PathTrie[int]().add(template, 1)


def test_hostile_segments_are_bounded() -> None:
    """Several parameters in a segment are found by trying; a long one is not tried."""
    made: PathTrie[int] = PathTrie()
    made.add("/x/{a}-{b}-{c}.json", 1)
    began = time.perf_counter()

    assert made.find("/x/" + "-" * 8000) is None
    assert made.find("/x/" + "-" * 250) is None
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("template", "route", "expected"),
    [
        ("/orders/{id}", "/orders/{order_id}", True),
        ("/orders/mine", "/orders/{order_id}", True),
        ("/orders/{id}", "/orders/7", True),
        ("/orders/{id}/x", "/orders/{rest:path}", True),
        ("/orders", "/{rest:path}", True),
        ("/orders", "/items", False),
        ("/orders/{id}", "/orders", False),
        ("/v1/orders", "/orders", False),
        ("/orders", "/orders/{rest:path}", True),
    ],
)
def test_routes_that_a_contract_could_describe(template: str, route: str, expected: bool) -> None:
    """Whether one path could match both."""
    assert compatible(template, route) is expected


@pytest.mark.parametrize(
    ("text", "essence", "kind", "utf8"),
    [
        ("application/json", "application/json", JSON, True),
        ("Application/JSON; charset=UTF-8", "application/json", JSON, True),
        ('application/json;charset="utf-8" ; x=y', "application/json", JSON, True),
        ("application/json;", "application/json", JSON, True),
        ("application/json; charset=latin1", "application/json", JSON, False),
        ("application/problem+json", "application/problem+json", JSON, True),
        ("text/json", "text/json", JSON, True),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded", FORM, True),
        ("text/plain", "text/plain", TEXT, True),
        ("multipart/form-data; boundary=x", "multipart/form-data", OTHER, True),
        ("application/xml", "application/xml", OTHER, True),
    ],
)
def test_media_types(text: str, essence: str, kind: str, utf8: bool) -> None:
    """Read as RFC 9110 has them."""
    found = parse(text)

    assert found is not None
    assert (found.essence, found.kind, found.is_utf8) == (essence, kind, utf8)


@pytest.mark.parametrize(
    "text",
    ["", "json", "a/", "/b", "a/b c", "a/b; x", "a/b; x=1; x=2", "a/b, c/d", 'a/b; x="',
     "application/json\x00", "a/b;charset=utf-8;charset=utf-16"],
)  # fmt: skip
def test_no_media_types(text: str) -> None:
    """What another reader could take for something else is none."""
    assert parse(text) is None


def test_the_most_exact_range_wins() -> None:
    """A type with its parameters, the type, its range, everything."""
    table = MediaTable(
        [("*/*", 1), ("application/*", 2), ("application/*+json", 3), ("application/json", 4),
         ("application/json; version=2", 5), ("text/*", 6), ("not a type", 7)]
    )  # fmt: skip

    def find(text: str) -> int:
        entry = table.find(text)
        assert entry is not None
        return entry[1]

    assert find("application/json") == 4
    assert find("application/json; version=2; charset=utf-8") == 5
    assert find("application/json; version=3") == 4
    assert find("application/hal+json") == 3
    assert find("application/xml") == 2
    assert find("text/html") == 6
    assert find("image/png") == 1
    assert table.find("nonsense") is None
    assert MediaTable([("application/json", 1)]).find("application/hal+json") is None
    for number in range(200):
        assert find(f"image/x{number}") == 1
