"""The normal form of paths, and the shadow that sloppy upstreams would see."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import AMBIGUOUS_PATH, MALFORMED_REQUEST
from gateway.routing.path import AmbiguousPath, PathError, normalise, shadow

PIECES = [
    "/", "//", ".", "..", "a", "b", "%2e", "%2E", "%2f", "%2F", "%5c", "%25", "%252e", "%25252f",
    ";", ";x=1", "%3b", "%41", "%c3%a9", "%C0%AF", "%00", "%0a", "%7f", "%", "%g1", "\\", " ", "~",
    "@", ":", "é", "%3F", "%23", "\x00",
]  # fmt: skip
paths = st.lists(st.sampled_from(PIECES), max_size=8).map(
    lambda pieces: ("/" + "".join(pieces)).encode("utf-8")
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/", "/"),
        (b"/v1/orders/42", "/v1/orders/42"),
        (b"/v1/orders/", "/v1/orders/"),
        (b"/%76%31/%6Frders", "/v1/orders"),
        (b"/a%2fb", "/a%2Fb"),
        (b"/caf%c3%a9", "/caf%C3%A9"),
        (b"/a//b///c", "/a/b/c"),
        (b"//", "/"),
        (b"/./a/./b", "/a/b"),
        (b"/a/../b", "/b"),
        (b"/a/b/..", "/a/"),
        (b"/a/b/.", "/a/b/"),
        (b"/a/%2e%2E/b", "/b"),
        (b"/a//../b", "/b"),
        (b"/a/..", "/"),
        (b"/.well-known/x", "/.well-known/x"),
        (b"/...", "/..."),
        (b"/a.b/..c/d..", "/a.b/..c/d.."),
        (b"/a;v=1/b", "/a;v=1/b"),
        (b"/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"),
        (b"/%252e%252e/x", "/%252e%252e/x"),
    ],
)
def test_normal_form(raw: bytes, expected: str) -> None:
    """Each spelling of a path has one normal form (RFC 3986 sections 5.2.4 and 6.2.2)."""
    assert normalise(raw) == expected


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "does not start"),
        (b"a/b", "does not start"),
        (b"*", "does not start"),
        (b"/a\\b", "backslash"),
        (b"/..\\admin", "backslash"),
        (b"/a%", "starts no escape"),
        (b"/a%2", "starts no escape"),
        (b"/a%zz", "starts no escape"),
        (b"/a%00", "encoded control"),
        (b"/a%0d%0aX", "encoded control"),
        (b"/a%1F", "encoded control"),
        (b"/a%7f", "encoded control"),
        (b"/a\x00", "control character"),
        (b"/a\x7f", "control character"),
        (b"/a\tb", "control character"),
        (b"/caf\xc3\xa9", "beyond ASCII"),
        (b"/a b", "percent-encoded"),
        (b"/a?b", "percent-encoded"),
        (b"/a#b", "percent-encoded"),
        (b'/a"b', "percent-encoded"),
        (b"/<a>", "percent-encoded"),
        (b"/{a}", "percent-encoded"),
        (b"/[a]|^`", "percent-encoded"),
        (b"/..", "climbs"),
        (b"/a/../../b", "climbs"),
        (b"/%2e%2e/a", "climbs"),
        (b"/a//../..", "climbs"),
        (b"/%C0%AF", "not UTF-8"),
        (b"/%c0%ae%c0%ae/x", "not UTF-8"),
        (b"/%ff", "not UTF-8"),
        (b"/%ED%A0%80", "not UTF-8"),
    ],
)
def test_refused(raw: bytes, reason: str) -> None:
    """What is no path, or could be read in two ways, is refused and not repaired."""
    with pytest.raises(PathError, match=reason) as caught:
        normalise(raw)

    assert caught.value.kind is MALFORMED_REQUEST
    assert caught.value.rejection().kind.status == 400


@given(paths)
def test_normal_form_is_final(raw: bytes) -> None:
    """Normalising twice changes nothing, and no `//`, dot segment or plain escape is left."""
    try:
        path = normalise(raw)
    except PathError:
        return

    assert normalise(path.encode()) == path
    assert path.startswith("/")
    assert path.isascii()
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))
    assert not re.search(r"%(?![0-9A-F]{2})|%[01]|%7F|%(?:2[DE]|3[0-9]|5F|7E)(?<!%3[A-F])", path)


@given(st.binary(max_size=40).map(lambda tail: b"/" + tail))
def test_arbitrary_bytes(raw: bytes) -> None:
    """Any bytes give a path in normal form or a PathError, nothing else."""
    try:
        path = normalise(raw)
    except PathError:
        return

    assert normalise(path.encode()) == path


@given(paths)
def test_meaning_is_kept(raw: bytes) -> None:
    """A path without slashes to merge and dots to resolve decodes to the same bytes as before."""
    try:
        path = normalise(raw)
    except PathError:
        return
    decoded = unquote_to_bytes(raw)
    if b"//" in raw or {b".", b".."} & {unquote_to_bytes(part) for part in raw.split(b"/")}:
        return

    assert unquote_to_bytes(path) == decoded


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/orders/42", None),
        ("/caf%C3%A9", None),
        ("/a%20b", None),
        ("/a%2Fb", "/a/b"),
        ("/a%5Cb", "/a/b"),
        ("/a%252Fb", "/a/b"),
        ("/a%255cb", "/a/b"),
        ("/a;x=1/b;y", "/a/b"),
        ("/a%3Bx/b", "/a/b"),
        ("/a;x%2Fb", "/a/b"),
        ("/admin%3Fx", "/admin"),
        ("/admin%23x", "/admin"),
        ("/admin%2500x", "/admin"),
        ("/100%25", "/100%25"),
        ("/a%2F", "/a/"),
        ("/%2Fa", "/a"),
        ("/a/;x/b", "/a/b"),
        ("/%2561dmin", "/admin"),
        ("/%25C3%25A9", "/%C3%A9"),
        ("/%2F", "/"),
    ],
)
def test_shadow(path: str, expected: str | None) -> None:
    """The shadow is what an upstream sees that decodes before it splits, or drops parameters."""
    assert shadow(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/a/..;/b",
        "/a/.;x/b",
        "/a%2F..%2Fb",
        "/a/..%2Fb",
        "/a/%252e%252e/b",
        "/a/%252E/b",
        "/..%5Cb",
        "/a%252F..",
        "/%2525252525252525252F",
    ],
)
def test_shadow_with_hidden_steps(path: str) -> None:
    """A shadow with dot segments, or below endless encodings, can't be followed: it is refused."""
    with pytest.raises(AmbiguousPath) as caught:
        shadow(path)

    assert caught.value.kind is AMBIGUOUS_PATH


@given(paths)
def test_shadow_is_normal(raw: bytes) -> None:
    """A shadow is in the shape that the table matches on, or AmbiguousPath is raised."""
    try:
        other = shadow(normalise(raw))
    except PathError:
        return
    if other is not None:
        assert other.startswith("/")
        assert "//" not in other
        assert not {".", ".."} & set(other.split("/"))
