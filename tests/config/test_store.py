"""The `store:` section: every form of its address, what is wrong with one, and no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.config.issues import ConfigErrors
from gateway.config.loader import Configuration, load
from gateway.config.model_store import StoreConfig, StoreKind, StoreUrl
from gateway.policies.catalog import PolicyCatalog


def url(text: str) -> StoreUrl:
    return StoreConfig.model_validate({"url": text}).url


def secret(parsed: StoreUrl) -> str:
    assert parsed.password is not None
    return parsed.password.get_secret_value()


def loaded(folder: Path, text: str, environ: dict[str, str] | None = None) -> Configuration:
    file = folder / "gateway.yaml"
    file.write_text(f"version: 1\n{text}\n")
    return load(file, PolicyCatalog(), environ or {})


def test_forms() -> None:
    """Each form is taken apart, and printed without its password."""
    assert url("embedded").kind is StoreKind.EMBEDDED
    one = url("redis://gw:p%40ss%2F@Redis.Internal:6380/3")
    assert (one.hosts, one.user, secret(one), one.db) == (
        (("redis.internal", 6380),), "gw", "p@ss/", 3,
    )  # fmt: skip
    assert str(one) == "redis://gw:***@redis.internal:6380/3"
    assert "p@ss" not in repr(one)
    assert url("redis://h").hosts == (("h", 6379),)
    assert url("redis://[::1]:7000/").hosts == (("::1", 7000),)
    assert str(url("redis://[::1]:7000/")) == "redis://[::1]:7000"
    tls = url("rediss://:a:b@h?ca=/ca.pem&cert=c.pem&key=k.pem&server_name=x")
    assert (tls.tls, tls.ca, tls.server_name, secret(tls)) == (True, Path("/ca.pem"), "x", "a:b")
    unix = url("unix://:pw@/run/redis.sock?db=2")
    assert (unix.path, unix.db, secret(unix)) == ("/run/redis.sock", 2, "pw")
    assert str(unix) == "unix://:***@/run/redis.sock?db=2"
    assert url("unix:///run/x").path == "/run/x"
    sentinel = url("redis+sentinel://:pw@s1,s2:1/mine/1?sentinel_password=sp&tls=true")
    assert sentinel.hosts == (("s1", 26379), ("s2", 1))
    assert (sentinel.master, sentinel.db, sentinel.tls) == ("mine", 1, True)
    assert sentinel.sentinel_password is not None
    assert str(sentinel) == "redis+sentinel://:***@s1:26379,s2:1/mine/1?tls=true"
    cluster = url("redis+cluster://n1,n2:7000")
    assert (cluster.kind, cluster.hosts) == (StoreKind.CLUSTER, (("n1", 6379), ("n2", 7000)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redsi://h", "a store's address is embedded"),
        ("redsi://h", 'did you mean "redis"'),
        ("localhost:6379", "a store's address is embedded"),
        ("redis://", "needs a host"),
        ("redis://h:0", "a port from 1 to 65535"),
        ("redis://h:99999", "a port from 1 to 65535"),
        ("redis://SECRET@h", "credentials are user:password@"),
        ("redis://user:@h", "the password is empty"),
        ("redis://u:SECRET%ff@h", "not UTF-8"),
        ("redis://u:SECRET#x@h", "has no fragment"),
        ("redis://u:SEC RET@h", "no spaces"),
        ("redis://h/x", "a database is a whole number"),
        ("redis://h/0/1", "nothing else"),
        ("redis://a,b", "takes one host"),
        ("redis://h?ca=/x", "takes no options"),
        ("rediss://h?server_nam=x", 'did you mean "server_name"'),
        ("rediss://h?ca=/x&ca=/y", "is there twice"),
        ("rediss://h?ca=", "has no value"),
        ("rediss://h?key=/x", "needs cert as well"),
        ("unix://run/x", "names no host"),
        ("unix://", "needs the absolute path"),
        ("unix:///", "needs the path of a socket"),
        ("redis+sentinel://h", "needs the name of the master"),
        ("redis+sentinel://h/m?ca=/x", "no effect without TLS"),
        ("redis+sentinel://h/m?tls=yes", "is true or false"),
        ("redis+cluster://h/1", "only database 0"),
    ],
)
def test_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    """Each mistake is named, with its place, and the address is never repeated."""
    with pytest.raises(ConfigErrors) as caught:
        loaded(tmp_path, f"store: {{url: '{text}'}}")
    [issue] = caught.value.issues
    assert message in str(issue)
    assert issue.path == "store.url"
    assert issue.line == 2
    assert "SEC" not in issue.message + issue.hint


def test_other_keys() -> None:
    """Defaults, and what is no prefix and no time limit."""
    config = StoreConfig()
    assert (config.timeout, config.key_prefix, str(config.data)) == (0.05, "lockgate", "var/store")
    for bad in ({"key_prefix": "a{b}"}, {"key_prefix": ""}, {"key_prefix": "ä"}, {"timeout": "0s"}):
        with pytest.raises(ValidationError):
            StoreConfig.model_validate(bad)


def test_password_by_reference_and_literal(tmp_path: Path) -> None:
    """A literal password is a finding; one by reference is none; neither is ever dumped."""
    configuration = loaded(tmp_path, "store: {url: 'redis://:hunter22@h'}")
    assert "a secret stands in the file" in " ".join(map(str, configuration.warnings))
    assert "hunter22" not in configuration.gateway.model_dump_json()
    assert "hunter22" not in " ".join(map(str, configuration.warnings))
    configuration = loaded(tmp_path, "store: {url: 'redis://:${env:PW}@h'}", {"PW": "hunter22"})
    assert not [each for each in configuration.warnings if each.path == "store.url"]
    assert secret(configuration.gateway.store.url) == "hunter22"
    assert "hunter22" not in repr(configuration.gateway)
    relative = loaded(tmp_path, "store: {data: there}").gateway.store.data
    assert relative == tmp_path / "there"


def test_urls_with_two_passwords_are_two_stores() -> None:
    """What the runtime keeps a store by tells passwords apart, though no text does."""
    one, two = (StoreConfig.model_validate({"url": f"redis://:{pw}@h"}) for pw in "ab")
    assert str(one.url) == str(two.url)
    assert one != two
    assert hash(one) == hash(StoreConfig.model_validate({"url": "redis://:a@h"}))
