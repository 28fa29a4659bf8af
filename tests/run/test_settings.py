"""The settings of the environment: read, refused in plain words, and kept out of sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.settings import derive_instance, load_settings, unknown_settings
from tests.run.gateway_process import clean_environ


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings."""
    import os

    for name in set(os.environ) - set(clean_environ()):
        monkeypatch.delenv(name)
    return monkeypatch


def test_defaults_need_no_environment() -> None:
    """Nothing set is a complete set of settings."""
    settings = load_settings()

    assert settings.config == Path("config/gateway.yaml")
    assert (settings.watch, settings.log_level, settings.drain.delay) == ("on", "info", 0.0)
    assert settings.worker_count(None) == 1


def test_options_go_before_the_environment(environ: pytest.MonkeyPatch) -> None:
    """What the command line leaves out comes from the environment."""
    environ.setenv("GATEWAY_CONFIG", "a.yaml")
    environ.setenv("GATEWAY_WATCH", "FALSE")
    environ.setenv("GATEWAY_DRAIN__DELAY", "5s")

    settings = load_settings(config=Path("b.yaml"), watch=None)

    assert settings.config == Path("b.yaml")
    assert settings.watch == "off"
    assert settings.drain.delay == 5.0


def test_secrets_come_from_files_and_do_not_show(
    environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`_FILE` names a file; its last newline is not part of the secret; reprs hide it."""
    (tmp_path / "token").write_text("hush-hush\n")
    environ.setenv("GATEWAY_ADMIN_TOKEN_FILE", str(tmp_path / "token"))

    settings = load_settings()

    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == "hush-hush"
    assert "hush" not in repr(settings)


def test_a_secret_given_twice_is_refused(environ: pytest.MonkeyPatch) -> None:
    """Nobody knows which of the two is meant."""
    environ.setenv("GATEWAY_ADMIN_TOKEN", "a")
    environ.setenv("GATEWAY_ADMIN_TOKEN_FILE", "b")

    with pytest.raises(ConfigError, match="both set"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_WORKERS", "0"),
        ("GATEWAY_WORKERS", "many"),
        ("WEB_CONCURRENCY", "0"),
        ("GATEWAY_WATCH", "perhaps"),
        ("GATEWAY_INSTANCE", "a b"),
        ("GATEWAY_DRAIN__DELAY", "5"),
        ("GATEWAY_DRAIN__DELY", "5s"),
        ("GATEWAY_WORKER__HEARTBEAT", "0s"),
        ("GATEWAY_ADMIN_TOKEN_FILE", "/does/not/exist"),
    ],
)
def test_unusable_settings_are_named(environ: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The message begins with the variable, and is one line."""
    environ.setenv(name, value)

    with pytest.raises(ConfigError, match=name) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_workers_come_from_the_nearest_place(environ: pytest.MonkeyPatch) -> None:
    """GATEWAY_WORKERS, then the file, then WEB_CONCURRENCY."""
    environ.setenv("WEB_CONCURRENCY", "3")
    assert load_settings().worker_count(None) == 3
    assert load_settings().worker_count(2) == 2
    assert load_settings().worker_count("auto") >= 1

    environ.setenv("GATEWAY_WORKERS", "4")
    assert load_settings().worker_count(2) == 4


def test_forwarded_allow_ips_is_read_as_networks(environ: pytest.MonkeyPatch) -> None:
    """A list with commas, or a star for everybody."""
    environ.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1, fd00::/8")
    assert load_settings().trusted_proxies() == ["10.0.0.1", "fd00::/8"]

    environ.setenv("FORWARDED_ALLOW_IPS", "*")
    assert load_settings().trusted_proxies() == ["0.0.0.0/0", "::/0"]


def test_mistyped_settings_are_pointed_out() -> None:
    """A near miss gets a hint; what Kubernetes announces about a service is not meant for us."""
    found = unknown_settings(
        {
            "GATEWAY_WACTH": "on",
            "GATEWAY_ADMIN_TOKEN_FILE": "x",
            "GATEWAY_SERVICE_HOST": "10.0.0.1",
            "GATEWAY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "HOME": "/",
        }
    )

    assert len(found) == 1
    assert "did you mean GATEWAY_WATCH?" in found[0]


def test_instances_differ_by_address() -> None:
    """The same address is the same instance, in every worker; another one is another."""
    assert derive_instance("http://a:1") == derive_instance("http://a:1")
    assert derive_instance("http://a:1") != derive_instance("http://a:2")
