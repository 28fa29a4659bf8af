"""`store.url`: where the store is, in all its forms.

    embedded
    redis://[user[:password]@]host[:port][/db]                   rediss:// for TLS
    unix://[user[:password]@]/path/to/socket[?db=1]
    redis+sentinel://[user[:password]@]host[:port],host.../master-name[/db]
    redis+cluster://[user[:password]@]host[:port],host...

Options follow as a query: `ca`, `cert`, `key` (PEM files) and `server_name` for TLS, `tls=true` for
Sentinel and Cluster, `sentinel_user` and `sentinel_password` for the sentinels themselves. Messages
here never repeat the URL, because it may hold a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from pydantic import SecretStr, ValidationInfo

from gateway.config.address import parse_host_port, refuse, resolve_path
from gateway.config.suggest import did_you_mean


class StoreKind(StrEnum):
    """How the store is reached."""

    EMBEDDED = "embedded"
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A store's address, taken apart. Its text never shows a password.

    `hosts` are the server, the sentinels or the first nodes of a cluster; `path` is a unix
    socket's; `master` is the name that the sentinels know.
    """

    kind: StoreKind = StoreKind.EMBEDDED
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    db: int = 0
    user: str = ""
    password: SecretStr | None = field(default=None, repr=False)
    sentinel_user: str = ""
    sentinel_password: SecretStr | None = field(default=None, repr=False)
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""

    @property
    def has_password(self) -> bool:
        """Whether the URL holds a secret."""
        return self.password is not None or self.sentinel_password is not None

    def __str__(self) -> str:
        if self.kind is StoreKind.EMBEDDED:
            return "embedded"
        login = f"{self.user}:***@" if self.password is not None else ""
        if self.path:
            return f"unix://{login}{self.path}" + (f"?db={self.db}" if self.db else "")
        places = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )
        path = "".join(f"/{part}" for part in (self.master, self.db or "") if part)
        if self.kind is StoreKind.SINGLE:
            return f"{'rediss' if self.tls else 'redis'}://{login}{places}{path}"
        return f"redis+{self.kind}://{login}{places}{path}{'?tls=true' if self.tls else ''}"


_SCHEMES: Final = {
    "redis": (StoreKind.SINGLE, 6379),
    "rediss": (StoreKind.SINGLE, 6379),
    "unix": (StoreKind.SINGLE, 0),
    "redis+sentinel": (StoreKind.SENTINEL, 26379),
    "redis+cluster": (StoreKind.CLUSTER, 6379),
}
_TLS_FILES: Final = ("ca", "cert", "key")
_TLS: Final = (*_TLS_FILES, "server_name")
_OPTIONS: Final = {
    "redis": (),
    "rediss": _TLS,
    "unix": ("db",),
    "redis+sentinel": ("tls", *_TLS, "sentinel_user", "sentinel_password"),
    "redis+cluster": ("tls", *_TLS),
}
FORMS: Final = "embedded, redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"


def _no(message: str, hint: str = "") -> Exception:
    return refuse("store_url", message, hint)


def parse_store_url(value: object, info: ValidationInfo) -> StoreUrl:
    """A `StoreUrl` from its text. Errors say which part is wrong, and never repeat it."""
    if isinstance(value, StoreUrl):
        return value
    if not isinstance(value, str):
        raise _no(f"a store's address is text: {FORMS}")
    if value == "embedded":
        return StoreUrl()
    scheme, separator, rest = value.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES:
        hint = did_you_mean(scheme, (*_SCHEMES, "embedded")) if len(scheme) < 20 else ""
        raise _no(f"a store's address is {FORMS}", hint)
    if any(ord(char) <= 32 or ord(char) == 127 for char in value):
        raise _no("a store's address has no spaces and no control characters in it")
    if "#" in rest:
        raise _no("a store's address has no fragment", "write # in a password as %23")
    rest, _, query = rest.partition("?")
    return _Parts(scheme, rest, _options(scheme, query), info).read()


def _options(scheme: str, query: str) -> dict[str, str]:
    known = _OPTIONS[scheme]
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, text = pair.partition("=")
        if name not in known:
            message = f"{scheme}:// takes the options {', '.join(known)}" if known else (
                f"{scheme}:// takes no options"
            )  # fmt: skip
            raise _no(f"an unknown option; {message}", did_you_mean(name, known))
        if name in options:
            raise _no(f"the option {name} is there twice")
        if not text:
            raise _no(f"the option {name} has no value")
        options[name] = _decode(text, f"the option {name}")
    return options


def _decode(text: str, what: str) -> str:
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _no(f"{what} is not UTF-8 once its %xx are decoded") from None
    if "\0" in plain:
        raise _no(f"{what} can't hold a NUL character")
    return plain


class _Parts:
    """One URL behind its scheme, with its query taken off."""

    def __init__(
        self, scheme: str, rest: str, options: dict[str, str], info: ValidationInfo
    ) -> None:
        self._scheme = scheme
        self._rest = rest
        self._options = options
        self._info = info
        self.kind, self._port = _SCHEMES[scheme]

    def read(self) -> StoreUrl:
        """Everything put together."""
        # The last @ of the authority ends the credentials: a password may hold others.
        authority, slash, path = self._split()
        login, at, places = authority.rpartition("@")
        user, password = self._login(login) if at else ("", None)
        tls = self._scheme == "rediss" or self._flag("tls")
        self._check_tls(tls)
        files = {name: self._file(name) for name in _TLS_FILES}
        if files["key"] is not None and files["cert"] is None:
            raise _no("the option key needs cert as well")
        sentinel_password = self._options.get("sentinel_password")
        common = StoreUrl(
            kind=self.kind,
            user=user,
            password=password,
            sentinel_user=self._options.get("sentinel_user", ""),
            sentinel_password=SecretStr(sentinel_password) if sentinel_password else None,
            tls=tls,
            server_name=self._options.get("server_name", ""),
            ca=files["ca"],
            cert=files["cert"],
            key=files["key"],
        )
        return self._placed(common, places, slash + path)

    def _split(self) -> tuple[str, str, str]:
        if self._scheme == "unix":
            # The path begins at the first slash that is not part of the credentials.
            at = self._rest.find("@/")
            cut = self._rest.find("/") if at < 0 else at + 1
            if cut < 0:
                raise _no(
                    "unix:// needs the absolute path of a socket, as in unix:///run/redis.sock"
                )
            return self._rest[:cut], "/", self._rest[cut + 1 :]
        at = self._rest.rfind("@")
        cut = self._rest.find("/", at + 1)
        if cut < 0:
            return self._rest, "", ""
        return self._rest[:cut], "/", self._rest[cut + 1 :]

    def _login(self, text: str) -> tuple[str, SecretStr | None]:
        user, colon, password = text.partition(":")
        if not colon:
            raise _no("credentials are user:password@, or :password@ for the default user")
        if not password:
            raise _no("the password is empty", "check the reference that should give it")
        return (
            _decode(user, "the user name"),
            SecretStr(_decode(password, "the password")),
        )

    def _flag(self, name: str) -> bool:
        value = self._options.get(name, "false")
        if value not in ("true", "false"):
            raise _no(f"the option {name} is true or false")
        return value == "true"

    def _check_tls(self, tls: bool) -> None:
        given = [name for name in _TLS if name in self._options]
        if given and not tls:
            raise _no(f"the option {given[0]} has no effect without TLS", "add tls=true")

    def _file(self, name: str) -> Path | None:
        text = self._options.get(name)
        return resolve_path(Path(text), self._info) if text else None

    def _placed(self, common: StoreUrl, places: str, path: str) -> StoreUrl:
        if self._scheme == "unix":
            if places:
                raise _no("unix:// names no host, only a path: three slashes, as in unix:///run/x")
            if len(path) < 2:
                raise _no("unix:// needs the path of a socket")
            file = _decode(path, "the path")
            return replace(common, path=file, db=self._db(self._options.get("db", "")))
        hosts = self._hosts(places)
        parts = [part for part in path.split("/") if part]
        if self.kind is StoreKind.SENTINEL:
            if not parts:
                hint = "as in redis+sentinel://s1,s2,s3/mymaster"
                raise _no("redis+sentinel:// needs the name of the master behind the hosts", hint)
            master = _decode(parts.pop(0), "the master's name")
            common = replace(common, master=master)
        if self.kind is StoreKind.CLUSTER and parts:
            raise _no("a cluster has only database 0, so its address has no path")
        if len(parts) > 1:
            raise _no("behind the host stands the number of a database and nothing else")
        return replace(common, hosts=hosts, db=self._db(parts[0] if parts else ""))

    def _db(self, text: str) -> int:
        if not text:
            return 0
        if not (text.isascii() and text.isdigit() and len(text) <= 5):
            raise _no("a database is a whole number, such as 0")
        return int(text)

    def _hosts(self, places: str) -> tuple[tuple[str, int], ...]:
        names = places.split(",")
        if self.kind is StoreKind.SINGLE and len(names) > 1:
            hint = "several hosts are redis+sentinel:// or redis+cluster://"
            raise _no(f"{self._scheme}:// takes one host", hint)
        found: list[tuple[str, int]] = []
        for name in names:
            place = parse_host_port(name) or parse_host_port(f"{name}:{self._port}")
            if place is None or not place[0] or not place[1]:
                message = "a store's address needs a host, or host:port with a port from 1 to 65535"
                raise _no(message, "write special characters of a password as %xx")
            found.append(place)
        return tuple(found)
