"""The access policy: allow and deny lists by client address."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from gateway.errors import ACCESS_DENIED
from gateway.message import Exchange
from gateway.policies.access import AccessConfig, AccessPolicy
from gateway.policies.base import BuildContext

Make = Callable[..., Exchange]


@pytest.mark.parametrize(
    ("config", "client", "passes"),
    [
        ({}, "192.0.2.1", True),
        ({}, "", True),
        ({"allow": ["10.0.0.0/8"]}, "10.1.2.3", True),
        ({"allow": ["10.0.0.0/8"]}, "192.0.2.1", False),
        ({"allow": ["10.0.0.0/8"]}, "::ffff:10.1.2.3", True),
        ({"allow": ["10.0.0.0/8"]}, "", False),
        ({"allow": ["0.0.0.0/0", "::/0"]}, "", False),
        ({"allow": ["10.0.0.0/8"]}, "not an address", False),
        ({"deny": ["10.0.0.0/8"]}, "10.1.2.3", False),
        ({"deny": ["10.0.0.0/8"]}, "::ffff:10.1.2.3", False),
        ({"deny": ["10.0.0.0/8"]}, "192.0.2.1", True),
        ({"deny": ["10.0.0.0/8"]}, "", True),
        ({"allow": ["10.0.0.0/8"], "deny": ["10.9.0.0/16"]}, "10.9.0.1", False),
        ({"allow": ["10.9.0.0/16"], "deny": ["10.0.0.0/8"]}, "10.9.0.1", False),
        ({"allow": ["2001:db8::/32"]}, "2001:DB8::5", True),
        ({"allow": ["192.0.2.1"]}, "192.0.2.1", True),
        ({"allow": ["192.0.2.1"]}, "192.0.2.2", False),
    ],
)
async def test_access(
    context: BuildContext,
    make_exchange: Make,
    config: dict[str, list[str]],
    client: str,
    passes: bool,
) -> None:
    """Deny wins; an empty allow list is everyone; who has no address is on no list."""
    policy = AccessPolicy.build(AccessConfig.model_validate(config), context)
    rejection = policy.check(make_exchange(client=client))

    assert (rejection is None) is passes
    if rejection is not None:
        assert rejection.kind is ACCESS_DENIED
        assert rejection.kind.status == 403


@pytest.mark.parametrize("text", ["10.0.0.1/8", "internal", "10.0.0.0/33", ""])
def test_networks_that_are_none(text: str) -> None:
    """A network that is none is an error, not an empty list that lets everyone in."""
    with pytest.raises(ValidationError):
        AccessConfig.model_validate({"allow": [text]})
