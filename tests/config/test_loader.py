"""The loader beside its golden cases: files, places, warnings, fingerprints, sharing, bounds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.config.loader import ConfigErrors, Configuration, load
from gateway.config.nodes import format_path, parse_path
from gateway.config.reader import MAX_BYTES
from tests.config.toy import catalog

ROUTE = "routes: [{name: a, match: {path: /a}, respond: {}}]\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def loaded(path: Path, text: str, environ: Mapping[str, str] | None = None) -> Configuration:
    return load(write(path / "gateway.yaml", text), catalog, environ or {})


def warnings(configuration: Configuration) -> list[str]:
    return [f"{issue.line}:{issue.column} {issue.path}" for issue in configuration.warnings]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """A file that is not there is one error without a line number."""
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path / "no.yaml", catalog, {})

    assert str(caught.value) == f"{tmp_path}/no.yaml: the file does not exist"


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_an_impossible_name_is_one_line(name: str) -> None:
    """A path that no file can have is refused like a missing one."""
    with pytest.raises(ConfigErrors) as caught:
        load(name, catalog, {})

    assert len(caught.value.issues) == 1


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A directory or a pipe is refused without being read, so that nothing waits for ever."""
    os.mkfifo(tmp_path / "pipe")

    for name in ("", "pipe"):
        with pytest.raises(ConfigErrors, match="not a regular file"):
            load(tmp_path / name, catalog, {})


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    """A name that leads through a file, not a directory, is refused with the system's reason."""
    file = write(tmp_path / "gateway.yaml", ROUTE)

    with pytest.raises(ConfigErrors, match="Not a directory"):
        load(file / "below.yaml", catalog, {})


def test_without_libyaml_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyYAML without its C loader is one clear line, not an import error."""
    monkeypatch.setattr("gateway.config.reader._PARSER", None)

    with pytest.raises(ConfigErrors, match="without its C loader"):
        loaded(tmp_path, ROUTE)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A file beyond the limit is refused without being parsed."""
    file = tmp_path / "gateway.yaml"
    file.write_bytes(b"#" * (MAX_BYTES + 1))

    with pytest.raises(ConfigErrors, match="larger than 16 MiB"):
        load(file, catalog, {})


def test_every_file_is_listed(tmp_path: Path) -> None:
    """Sources, referenced files and plugins are listed for the watcher, and so are directories."""
    write(tmp_path / "routes/a.yaml", ROUTE)
    write(tmp_path / "token", "secret\n")
    write(tmp_path / "stamp.py", "")
    text = "include: [routes/*.yaml]\nplugins: [stamp.py]\nserver: {admin_token: '${file:token}'}\n"

    configuration = loaded(tmp_path, text)

    names = [str(path.relative_to(tmp_path)) for path in configuration.files]
    assert names == ["gateway.yaml", "routes/a.yaml", "token", "stamp.py"]
    assert configuration.directories == [tmp_path / "routes"]
    assert configuration.base_dir == tmp_path


def test_the_fingerprint_follows_everything(tmp_path: Path) -> None:
    """It changes with a source, an included file, a variable, a referenced file, a plugin."""
    write(tmp_path / "routes/a.yaml", ROUTE)
    write(tmp_path / "token", "one")
    write(tmp_path / "stamp.py", "")
    text = "include: [routes/*]\nplugins: [stamp.py]\n"
    text += "server: {admin_token: '${file:token}', workers: '${env:N}'}\n"

    seen = [loaded(tmp_path, text, {"N": "1"}).fingerprint]
    assert loaded(tmp_path, text, {"N": "1", "M": "2"}).fingerprint == seen[0]
    seen.append(loaded(tmp_path, text, {"N": "2"}).fingerprint)
    write(tmp_path / "token", "two")
    seen.append(loaded(tmp_path, text, {"N": "1"}).fingerprint)
    write(tmp_path / "stamp.py", "pass")
    seen.append(loaded(tmp_path, text, {"N": "1"}).fingerprint)
    write(tmp_path / "routes/a.yaml", ROUTE + "# changed\n")
    seen.append(loaded(tmp_path, text, {"N": "1"}).fingerprint)
    seen.append(loaded(tmp_path, text + "# changed\n", {"N": "1"}).fingerprint)

    assert len(set(seen)) == len(seen)
    assert all(len(value) == 64 for value in seen)


def test_locate_finds_own_and_inherited_keys(tmp_path: Path) -> None:
    """A path leads to where the value was written, be it in a profile or in the defaults."""
    text = (
        "defaults: {cors: {origins: [a]}}\n"
        "profiles: {slow: {timeout: 60s}}\n"
        "routes:\n"
        "  - name: a\n"
        "    match: {path: /a}\n"
        "    respond: {}\n"
        "    use: [slow]\n"
        "    body: {max: 1KiB}\n"
    )
    file = tmp_path / "gateway.yaml"

    locate = loaded(tmp_path, text).locate

    assert locate("routes[0].body.max") == f"{file}:8:17"
    assert locate("routes[0].timeout") == f"{file}:2:28"
    assert locate("routes[0].cors.origins[0]") == f"{file}:1:29"
    assert locate("routes[0].correlation") == f"{file}:4:5"
    assert locate("routes[0].match.host") == f"{file}:5:12"
    assert locate("routes[7].match") == f"{file}:4:3"
    assert locate("") == f"{file}:1:1"


def test_paths_are_read_as_they_are_written() -> None:
    """Unusual keys are quoted in a path, and survive."""
    path = ("upstreams", "a.b", 'quo"te\\', "c d", 3, "plain-key_1")

    assert parse_path(format_path(path)) == path
    assert parse_path("routes[2].match.path") == ("routes", 2, "match", "path")


def test_a_literal_secret_is_a_warning(tmp_path: Path) -> None:
    """A secret in the file is warned of, one by reference is not, and neither is printed."""
    text = ROUTE + "server: {admin_token: hunter2}\n"

    configuration = loaded(tmp_path, text)

    assert warnings(configuration) == ["2:23 server.admin_token"]
    assert "hunter2" not in f"{configuration} {configuration.gateway.model_dump_json()}"
    assert "hunter2" not in str(configuration.warnings[0])
    by_reference = text.replace("hunter2", "'${env:TOKEN}'")
    assert warnings(loaded(tmp_path, by_reference, {"TOKEN": "hunter2"})) == []


def test_dumps_are_masked(tmp_path: Path) -> None:
    """A referenced value in a field that is no secret is shown as its reference."""
    text = "routes: [{name: a, match: {path: /a}, respond: {headers: {Authorization: "
    text += "'Bearer ${env:TOKEN}', X-Long: '${env:LONG}', X-D: '${env:D:-default}'}}}]\n"
    environ = {"TOKEN": "hunter2", "LONG": "hunter2-and-more"}

    configuration = loaded(tmp_path, text, environ)
    shown = configuration.mask(configuration.gateway.model_dump(mode="json", by_alias=True))

    assert shown["routes"][0]["respond"]["headers"] == {
        "Authorization": "Bearer ${env:TOKEN}",
        "X-Long": "${env:LONG}",
        "X-D": "default",
    }
    assert "hunter2" not in f"{shown}{configuration}"


def test_a_literal_secret_of_a_plugin_is_a_warning(tmp_path: Path) -> None:
    """Secrets of policies are looked at too, once however many routes inherit them."""
    route = "  - {name: NAME, match: {path: /NAME}, respond: {}}\n"
    text = "plugins: [signature.py]\n"
    text += "defaults: {plugins: [{use: signature, with: {key: hunter2}}]}\n"
    text += "routes:\n" + route.replace("NAME", "a") + route.replace("NAME", "b")

    configuration = loaded(tmp_path, text)

    assert warnings(configuration) == ["2:51 routes[0].plugins[0].with.key"]


def test_believing_everybody_is_a_warning(tmp_path: Path) -> None:
    """A trusted network that is the whole internet is warned of."""
    text = ROUTE + "server: {trusted_proxies: [10.0.0.0/8, 0.0.0.0/0, '::/0']}\n"

    assert warnings(loaded(tmp_path, text)) == [
        "2:40 server.trusted_proxies[1]",
        "2:51 server.trusted_proxies[2]",
    ]


def test_a_route_that_lost_its_timeout_is_a_warning(tmp_path: Path) -> None:
    """No timeout anywhere is warned of, unless the route says null itself."""
    text = (
        "upstreams: {a: {targets: ['http://a']}, b: {targets: ['http://b'], timeout: 3s}}\n"
        "defaults: {timeout: null}\n"
        "routes:\n"
        "  - {name: a, match: {path: /a}, upstream: a}\n"
        "  - {name: b, match: {path: /b}, upstream: b}\n"
        "  - {name: c, match: {path: /c}, upstream: a, timeout: null}\n"
        "  - {name: d, match: {path: /d}, upstream: a, timeout: 1s}\n"
        "  - {name: e, match: {path: /e}, respond: {}}\n"
    )

    assert warnings(loaded(tmp_path, text)) == ["4:5 routes[0]"]


def test_useless_settings_are_warnings(tmp_path: Path) -> None:
    """TLS settings without a target that speaks TLS, and no routes at all, are warned of."""
    text = "upstreams: {a: {targets: ['http://a'], timeout: 1s, tls: {server_name: a}}}\n"

    assert warnings(loaded(tmp_path, text)) == ["1:1 routes", "1:58 upstreams.a.tls"]


def test_a_plugin_that_cannot_be_loaded_hides_no_other_error(tmp_path: Path) -> None:
    """The plugin's error stands at its entry, and the rest of the file is checked as well."""
    with pytest.raises(ConfigErrors) as caught:
        loaded(tmp_path, "plugins: [nowhere]\nserver: {workers: x}\n")

    assert [issue.path for issue in caught.value.issues] == ["plugins[0]", "server.workers"]


def test_ten_thousand_routes_share_what_they_inherit(tmp_path: Path) -> None:
    """Many routes load, and an inherited policy is validated once and is one object."""
    route = (
        "  - name: route-{0}\n"
        "    match: {{host: h{1}.internal, path: '/v1/{0}/{{id}}', methods: [GET]}}\n"
        "    upstream: orders\n"
        "    use: [web]\n"
    )
    text = "upstreams: {orders: {targets: ['http://a']}}\n"
    text += "defaults: {timeout: 10s}\nprofiles: {web: {cors: {origins: [a]}}}\nroutes:\n"
    text += "".join(route.format(i, i % 7) for i in range(10_000))

    routes = loaded(tmp_path, text).gateway.routes

    assert len(routes) == 10_000
    assert len({id(route.policies["cors"]) for route in routes}) == 1
    assert len({id(route.policies["timeout"]) for route in routes}) == 1


def test_a_file_name_cannot_forge_a_line(tmp_path: Path) -> None:
    """Control characters in names and keys do not break the one-line form of an error."""
    file = write(tmp_path / "a\nb.yaml", '"x\\ny": 1\n')

    with pytest.raises(ConfigErrors) as caught:
        load(file, catalog, {})

    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${env:A}", "one"),
        ("x${env:A}y${env:B}z", "xoneytwoz"),
        ("${env:NONE:-}", ""),
        ("${env:EMPTY:-d}", "d"),
        ("${env:EMPTY}", ""),
        ("${env:NONE:-a:b-c}", "a:b-c"),
        ("$${env:A}", "${env:A}"),
        ("$$${env:A}", "$${env:A}"),
        ("$A $ { } ${env:A}", "$A $ { } one"),
        ("${file:plain}", "text"),
        ("${file:windows}", "text"),
        ("${file:lines}", "a\nb\n"),
    ],
)
def test_references(tmp_path: Path, written: str, value: str) -> None:
    """References stand anywhere in a text; a file's last newline is not part of its value."""
    write(tmp_path / "plain", "text\n")
    (tmp_path / "windows").write_bytes(b"text\r\n")
    write(tmp_path / "lines", "a\nb\n\n")
    text = f"routes: [{{name: a, match: {{path: /a}}, respond: {{body: '{written}'}}}}]\n"

    configuration = loaded(tmp_path, text, {"A": "one", "B": "two", "EMPTY": ""})

    respond = configuration.gateway.routes[0].respond
    assert respond is not None
    assert respond.body == value


@pytest.mark.parametrize(
    "written",
    [
        "${env:NONE}",
        "${env:}",
        "${env:a b}",
        "${env:1A}",
        "${env:A",
        "${",
        "${}",
        "${A}",
        "${ENV:A}",
        "${file:}",
        "${file:none}",
        "${file:.}",
        "${file:binary}",
        "${file:large}",
        "${env:NONE:-${env:A}}",
    ],
)
def test_references_that_give_nothing(tmp_path: Path, written: str) -> None:
    """A reference that can't be resolved is one error, at its place, and nothing else."""
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"x" * (1024 * 1024 + 1))
    text = f"routes: [{{name: a, match: {{path: /a}}, respond: {{body: '{written}'}}}}]\n"

    with pytest.raises(ConfigErrors) as caught:
        loaded(tmp_path, text, {"A": "one"})

    (issue,) = caught.value.issues
    assert (issue.line, issue.column) == (1, 55)


def test_an_upstreams_policies_are_its_routes(tmp_path: Path) -> None:
    """They stand above the defaults and below the route's own key; null takes them away."""
    text = (
        "defaults: {timeout: 9s}\n"
        "upstreams: {a: {targets: ['http://a'], timeout: 3s}, b: {targets: ['http://b']}}\n"
        "routes:\n"
        "  - {name: of-a, match: {path: /1}, upstream: a}\n"
        "  - {name: own, match: {path: /2}, upstream: a, timeout: 5s}\n"
        "  - {name: none, match: {path: /3}, upstream: a, timeout: null}\n"
        "  - {name: of-b, match: {path: /4}, upstream: b}\n"
    )
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    routes = load(file, catalog, {}).gateway.routes

    timeouts: list[Any] = [route.policies.get("timeout") for route in routes]
    assert [each.root if each else None for each in timeouts] == [3.0, 5.0, None, 9.0]
