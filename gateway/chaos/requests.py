"""The requests of each route: from its match, its contract, its identities, and the scenario."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from urllib.parse import quote, urlencode

from gateway.chaos.credentials import NoStandIn, Wallet
from gateway.chaos.described import Described
from gateway.chaos.scenario import RequestConfig
from gateway.chaos.standin import TAG
from gateway.config.model import RouteConfig
from gateway.policies.access import AccessConfig
from gateway.policies.auth.policy import AuthConfig
from gateway.routing.template import Template

NUMBER: Final = "{n}"
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_PREFERRED: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
# So many different values of a path's parameter, as a cache would meet them.
_VALUES: Final = 10


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to be sent. `head` ends with the empty line."""

    route: str
    number: int
    method: str
    head: bytes
    body: bytes


class Maker:
    """Makes the requests of one route. Raises NoStandIn if it can't be asked as it wants."""

    def __init__(
        self,
        route: RouteConfig,
        described: Callable[[RouteConfig, str], Described],
        wallet: Wallet,
        given: RequestConfig | None,
        rng: Random,
    ) -> None:
        self.route = route.name
        self._given = given or RequestConfig()
        self._random = random.Random(rng.random())  # noqa: S311 - generated paths
        self._config = route
        self._wallet = wallet
        self._auth = route.policies.get("auth")
        self.method = self._given.method or _method(route)
        self.described = described(route, self.method)
        self._fields = self._fixed_fields()
        self._body = self._fixed_body()
        self.probe(0)

    def target(self) -> str:
        """The request target."""
        if self._given.path is not None:
            return self._given.path
        template = Template(self._config.match.path)
        path = self._config.match.path
        for name in template.singles:
            value = self.described.path.get(name)
            text = str(1000 + self._random.randrange(_VALUES)) if value is None else str(value)
            path = path.replace(f"{{{name}}}", quote(text, safe=""))
        if template.rest:
            path = path.replace(f"{{{template.rest}:path}}", "chaos")
        query = urlencode({name: _plain(value) for name, value in self.described.query.items()})
        return quote(path, safe="/%-._~!$&'()*+,;=:@") + (f"?{query}" if query else "")

    def probe(self, number: int) -> tuple[str, list[tuple[str, str]], bytes]:
        """Target, header fields and body of a request. Raises NoStandIn."""
        shown = str(number)
        body = self._body.replace(NUMBER.encode(), shown.encode())
        fields = [(name, value.replace(NUMBER, shown)) for name, value in self._fields]
        if isinstance(self._auth, AuthConfig):
            given = {name.lower() for name, _ in fields}
            proof = self._wallet.fields(self._auth, body)
            fields += [each for each in proof if each[0].lower() not in given]
        if self.method in _WITH_BODY or body:
            fields.append(("Content-Length", str(len(body))))
        return self.target().replace(NUMBER, shown), fields, body

    def make(self, number: int) -> Request:
        """The request with this number."""
        target, fields, body = self.probe(number)
        tag = TAG.decode()
        lines = [f"{self.method} {target} HTTP/1.1", f"{tag}: {number};{self.route}"]
        lines += [f"{name}: {value}" for name, value in fields]
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        return Request(self.route, number, self.method, head, body)

    def _fixed_fields(self) -> list[tuple[str, str]]:
        match, policies = self._config.match, self._config.policies
        fields = {"host": ("Host", _host(match.host)), "accept": ("Accept", "*/*")}
        for name, value in self.described.headers.items():
            fields[name.lower()] = (name, _plain(value))
        fields |= {name.lower(): (name, value) for name, value in match.headers.items()}
        if "idempotency" in policies and self.method in _WITH_BODY:
            fields["idempotency-key"] = ("Idempotency-Key", f"chaos-{NUMBER}")
        address = address_for(self._config)
        if address is not None:
            fields["x-forwarded-for"] = ("X-Forwarded-For", address)
        fields |= {name.lower(): (name, value) for name, value in self._given.headers.items()}
        if self._has_json and "content-type" not in fields:
            fields["content-type"] = ("Content-Type", "application/json")
        return list(fields.values())

    @property
    def _has_json(self) -> bool:
        given = self._given
        return given.has_json or (given.body is None and self.method in _WITH_BODY)

    def _fixed_body(self) -> bytes:
        given = self._given
        if given.body is not None:
            return given.body.encode()
        if not self._has_json:
            return b""
        value: Any = {}
        if given.has_json:
            value = given.json_body
        elif self.described.has_body:
            value = self.described.body
        return json.dumps(value, default=str).encode()


def _method(route: RouteConfig) -> str:
    methods = route.match.methods
    if methods is None:
        return "GET"
    return next((each for each in _PREFERRED if each in methods), methods[0])


def _host(pattern: str | None) -> str:
    if pattern in (None, "*"):
        return "chaos.internal"
    assert pattern is not None
    return pattern.replace("*", "chaos", 1)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def address_for(route: RouteConfig) -> str | None:
    """The address that clients must come from; None if this machine's own will do."""
    access = route.policies.get("access")
    if not isinstance(access, AccessConfig) or access.mode == "report":
        return None
    own = _loopback_allowed(access)
    if own:
        return None
    for network in access.allow:
        first = network[1] if network.num_addresses > 2 else network[0]
        if not any(first.version == each.version and first in each for each in access.deny):
            return str(first)
    raise NoStandIn("its access list leaves no address to come from")


def _loopback_allowed(access: AccessConfig) -> bool:
    allowed = not access.allow or any(_holds_loopback(each) for each in access.allow)
    return allowed and not any(_holds_loopback(each) for each in access.deny)


def _holds_loopback(network: Any) -> bool:
    return network.version == 4 and int(network.network_address) <= 0x7F000001 <= int(
        network.broadcast_address
    )
