"""Path templates: their grammar, what they capture, how they are put together again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.path import PathError, normalise
from gateway.routing.template import Template, TemplateError, decode


def captured(template: str, path: str) -> dict[str, str]:
    """The raw parameters of a path that matches."""
    return Template(template).capture(path[1:].split("/"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("orders", "starts with /"),
        ("/v{id}", "whole segment"),
        ("/{id}.json", "whole segment"),
        ("/{a}{b}", "whole segment"),
        ("/{}", "whole segment"),
        ("/{1a}", "whole segment"),
        ("/{a:int}", "whole segment"),
        ("/{a", "whole segment"),
        ("/a}", "whole segment"),
        ("/{a}/{a}", "there twice"),
        ("/{a}/{a:path}", "there twice"),
        ("/{rest:path}/x", "at the end"),
        ("/a//b", "empty segment"),
        ("/a/./b", "dot segments"),
        ("/a/%2e", "dot segments"),
        ("/a/../b", "climbs"),
        ("/a%", "escape"),
        ("/a%00", "control"),
        ("/a b", "percent-encoded"),
        ("/a?b", "percent-encoded"),
        ("/a\\b", "backslash"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    """What is no template is refused with a reason that says what is wrong."""
    with pytest.raises(TemplateError, match=reason):
        Template(text)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("/", "/"),
        ("/v1/orders", "/v1/orders"),
        ("/v1/%6frders/", "/v1/orders/"),
        ("/café", "/caf%C3%A9"),
        ("/a%2fb", "/a%2Fb"),
        ("/v1/{id}/items", "/v1/{}/items"),
        ("/v1/{other}/items", "/v1/{}/items"),
        ("/f/{rest:path}", "/f/{:path}"),
    ],
)
def test_shape(text: str, shape: str) -> None:
    """Templates that match the same paths have the same shape, literals in normal form."""
    assert Template(text).shape == shape


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("/v1/orders/{id}", "/v1/orders/42", {"id": "42"}),
        ("/{a}/x/{b}", "/1/x/2", {"a": "1", "b": "2"}),
        ("/f/{rest:path}", "/f/a/b/", {"rest": "a/b/"}),
        ("/f/{rest:path}", "/f/", {"rest": ""}),
        ("/{rest:path}", "/", {"rest": ""}),
        ("/{a}/{rest:path}", "/1/2/3", {"a": "1", "rest": "2/3"}),
        ("/v1/orders/{id}", "/v1/orders/a%2Fb", {"id": "a%2Fb"}),
    ],
)
def test_capture(template: str, path: str, expected: dict[str, str]) -> None:
    """Parameters are captured as they stand in the path, still encoded."""
    assert captured(template, path) == expected


def test_decode() -> None:
    """Policies see parameters decoded as UTF-8."""
    assert decode({"id": "a%2Fb%20%C3%A9+%25", "x": "y"}) == {"id": "a/b é+%", "x": "y"}


@pytest.mark.parametrize(
    ("match", "rewrite", "path", "expected"),
    [
        ("/v1/orders/{id}", "/orders/{id}", "/v1/orders/42", "/orders/42"),
        ("/v1/orders/{id}", "/orders/{id}", "/v1/orders/a%2F..%2Fb", "/orders/a%2F..%2Fb"),
        ("/v1/{a}/{b}", "/{b}/{a}/x", "/v1/1/2", "/2/1/x"),
        ("/api/{rest:path}", "/{rest:path}", "/api/a/b", "/a/b"),
        ("/api/{rest:path}", "/v2/{rest:path}", "/api/", "/v2/"),
        ("/v1/{id}", "/fixed", "/v1/1", "/fixed"),
    ],
)
def test_expand(match: str, rewrite: str, path: str, expected: str) -> None:
    """A rewrite puts the encoded parameters back, so that they can't change the structure."""
    template = Template(rewrite)
    template.check_expands(Template(match))

    assert template.expand(captured(match, path)) == expected


@pytest.mark.parametrize(
    ("match", "rewrite", "reason"),
    [
        ("/v1/{id}", "/{other}", "no parameter of /v1/{id}"),
        ("/v1/{id}", "/{id:path}", "no parameter of"),
        ("/f/{rest:path}", "/x/{rest}", "write {rest:path}"),
        ("/f", "/{id}", "no parameter"),
    ],
)
def test_expand_needs_the_same_parameters(match: str, rewrite: str, reason: str) -> None:
    """A rewrite that uses what its route does not capture is refused when it is built."""
    with pytest.raises(TemplateError, match=reason):
        Template(rewrite).check_expands(Template(match))


segments = st.text(min_size=1, max_size=12).map(
    lambda text: "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))
)


@given(segments, segments)
def test_rewritten_path_is_normal(first: str, second: str) -> None:
    """Whatever was captured from a path in normal form gives a path in normal form again."""
    try:
        path = normalise(f"/v1/{first}/{second}".encode())
    except PathError:
        return
    parts = path[1:].split("/")
    if len(parts) != 3 or not parts[2]:
        return
    expanded = Template("/x/{b}/{a}").expand(Template("/v1/{a}/{b}").capture(parts))

    assert normalise(expanded.encode()) == expanded
    assert expanded.count("/") == 3
