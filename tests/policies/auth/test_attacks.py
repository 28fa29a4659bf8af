"""Hostile tokens against one identity: every attack is refused, and its harmless twin accepted."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.config.model_token import JwtIdentity
from gateway.errors import INVALID_CREDENTIALS, Rejection
from gateway.message import Exchange, Headers, Principal, Request
from gateway.policies.auth.claims import Reader
from gateway.policies.auth.fields import field_value
from gateway.policies.auth.identity import Foreign
from gateway.policies.auth.keys import Key, KeySet, parse_keys
from gateway.policies.auth.signed import SignedToken
from gateway.policies.auth.source import Unknown
from tests.policies.auth.attacks import ATTACKS
from tests.support.idp import AUDIENCE, IdentityProvider, SigningKey, dump

_KEY = SigningKey("e1", "ES256")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
_HEADER = {"alg": "ES256", "kid": "e1"}


class Keys:
    """A source whose keys are all there are."""

    def __init__(self, *jwks: dict[str, Any]) -> None:
        self.keys = parse_keys(json.dumps({"keys": jwks}).encode())
        self.asked: list[str | None] = []

    def known(self, kid: str | None, algorithm: str) -> list[Key] | None:
        return self.keys.find(kid, algorithm)

    async def look(self, kid: str | None, algorithm: str) -> list[Key] | Unknown:
        self.asked.append(kid)
        return []


def verifier(idp: IdentityProvider, keys: Any = None, **config: Any) -> SignedToken:
    """An identity that takes the provider's tokens."""
    given = {"type": "jwt", "issuer": idp.issuer, "audience": AUDIENCE, **config}
    model = JwtIdentity.model_validate(given)
    reader = Reader(
        "staff",
        consumer=model.consumer_claim,
        scopes=model.scopes_claim,
        require=model.require,
        tiers={"web": "gold"},
    )
    source: Any = keys or Keys(*idp.published)

    return SignedToken("staff", model, source, reader, ManualClock(time.time()))


def exchange(*credentials: bytes, **facts: Any) -> Exchange:
    """A request with these Authorization fields."""
    fields = [(b"authorization", each) for each in credentials]
    return Exchange(Request("GET", "/", b"", Headers([(b"host", b"a"), *fields]), **facts), 0.0)


async def judge(identity: SignedToken, token: str | bytes, **facts: Any) -> Any:
    """The identity's verdict on a bearer token."""
    value = token if isinstance(token, bytes) else b"Bearer " + token.encode()
    verdict = identity.authenticate(exchange(value, **facts))
    if verdict is None or isinstance(verdict, Principal | Rejection):
        return verdict
    return await verdict


@pytest.fixture(scope="module")
def idp(key: SigningKey) -> IdentityProvider:
    """A provider that is asked for tokens alone; it also publishes a key for encryption."""
    provider = IdentityProvider(key)
    provider.port = 1
    provider.published.append({**key.jwk(use="enc"), "kid": "enc"})
    return provider


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(idp: IdentityProvider, strange: SigningKey, name: str) -> None:
    """Refused with 401, a reason, and a challenge; and never remembered as good."""
    identity = verifier(idp)
    token = ATTACKS[name](idp, strange)
    for _ in range(2):
        verdict = await judge(identity, token)

        assert isinstance(verdict, Rejection), verdict
        assert verdict.kind is INVALID_CREDENTIALS
        assert verdict.detail
        ((field, challenge),) = verdict.headers
        assert field == b"www-authenticate"
        assert challenge.startswith(b'Bearer realm="staff", error="invalid_')
        assert token.encode() not in challenge
    assert len(identity.remembered) == 0


async def test_a_good_token(idp: IdentityProvider) -> None:
    """The twin of all attacks: accepted, at once, and remembered."""
    identity = verifier(idp)
    for _ in range(2):
        verdict = identity.authenticate(exchange(f"Bearer {idp.token()}".encode()))

        assert isinstance(verdict, Principal)
        assert verdict.consumer == "web"
        assert verdict.scopes == {"orders:read", "orders:write"}
        assert (verdict.identity, verdict.tier) == ("staff", "gold")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["billing-api", "orders-api"]},
        {"aud": ["orders-api"]},
        {"nbf": 1},
        {"iat": None},
        {"scope": None},
        {"client_id": None},
        {"client_id": "", "azp": "web"},
        {"exp": 253402300799},
        {"exp": 4102444800.5},
        {"sub": "Zoë \U0001f600"},
        {"deep": [[[[[[[[1]]]]]]]]},
        {"a" * 50: 2**60},
    ],
)
async def test_claims_that_are_fine(idp: IdentityProvider, changes: dict[str, Any]) -> None:
    """What is unusual and allowed is accepted."""
    assert isinstance(await judge(verifier(idp), idp.token(**changes)), Principal)


@pytest.mark.parametrize(
    "header",
    [
        {"typ": None},
        {"typ": "jwt"},
        {"typ": "at+jwt"},
        {"typ": "application/at+jwt"},
        {"typ": "AT+JWT"},
        {"kid": None},
        {"jku": "http://127.0.0.1:1/", "x5t": "abc", "x5c": ["MIIB"]},
    ],
)
async def test_headers_that_are_fine(idp: IdentityProvider, header: dict[str, Any]) -> None:
    """What the header says beside the algorithm and the key is not followed, and does no harm."""
    assert isinstance(await judge(verifier(idp), idp.token(header=header)), Principal)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer   "])
async def test_the_scheme_has_no_case(idp: IdentityProvider, scheme: str) -> None:
    """RFC 9110 section 11.1; one or more spaces follow."""
    verdict = await judge(verifier(idp), f"{scheme} {idp.token()}".encode())

    assert isinstance(verdict, Principal)


@pytest.mark.parametrize(
    "value",
    [b"Bearer", b"Bearer ", b"Bearer a b", b"Bearer a, Bearer b", b"Bearer\ta", b'Bearer "a"',
     b"Bearer =", b"Bearer a=b", b"Bearer \xff", b"Bearer,a", b"Bearer: a"],
)  # fmt: skip
async def test_what_is_no_token(idp: IdentityProvider, value: bytes) -> None:
    """A Bearer field that holds no token is refused as such."""
    verdict = await judge(verifier(idp), value)

    assert isinstance(verdict, Rejection)
    assert b'error="invalid_request"' in verdict.headers[0][1]


@pytest.mark.parametrize(
    "value", [b"Basic dTpw", b"", b"DPoP a.b.c", b"Bearerx a.b.c", b"x" * 9000, b"Bearer-2 a.b.c"]
)
async def test_other_schemes_are_others_business(idp: IdentityProvider, value: bytes) -> None:
    """What is no bearer token is as if nothing were there."""
    assert await judge(verifier(idp), value) is None


async def test_several_fields(idp: IdentityProvider) -> None:
    """Two Authorization fields: who reads the other one? Refused, also once the token is known."""
    identity = verifier(idp)
    good = f"Bearer {idp.token()}".encode()
    assert isinstance(await judge(identity, good), Principal)
    for pair in ((good, good), (good, b"Basic dTpw"), (b"Basic dTpw", good)):
        verdict = identity.authenticate(exchange(*pair))

        assert isinstance(verdict, Rejection), pair
        assert verdict.detail == "several Authorization fields were sent"


async def test_repeated_other_fields_do_not_matter(idp: IdentityProvider) -> None:
    """Only Authorization must stand alone."""
    identity = verifier(idp)
    value = f"Bearer {idp.token()}".encode()
    for _ in range(2):
        fields = [(b"authorization", value), (b"accept", b"a"), (b"accept", b"b")]
        request = Request("GET", "/", b"", Headers(fields))

        assert isinstance(identity.authenticate(Exchange(request, 0.0)), Principal)


@pytest.mark.parametrize(
    ("algorithm", "curve"),
    [("RS384", None), ("RS512", None), ("PS256", None), ("PS384", None), ("PS512", None),
     ("ES256", None), ("ES384", None), ("ES512", None), ("EdDSA", None), ("EdDSA", "Ed448")],
)  # fmt: skip
async def test_every_algorithm(key: SigningKey, algorithm: str, curve: str | None) -> None:
    """Each verifies its own signatures, and refuses changed ones."""
    made = SigningKey("k2", algorithm, curve=curve)
    idp = IdentityProvider(made)
    identity = verifier(idp, algorithms=[algorithm])
    token = idp.token()

    assert isinstance(await judge(identity, token), Principal)
    head, _, signature = token.split(".")
    assert isinstance(
        await judge(identity, f"{head}.{dump(idp.claims(sub='x'))}.{signature}"), Rejection
    )


@pytest.mark.parametrize(("algorithm", "size"), [("ES256", 32), ("ES384", 48), ("ES512", 66)])
async def test_ecdsa_signatures_that_are_none(algorithm: str, size: int) -> None:
    """Zeros (CVE-2022-21449), one of r and s zero, wrong lengths, DER in place of both."""
    made = SigningKey("e1", algorithm)
    idp = IdentityProvider(made)
    identity = verifier(idp, algorithms=[algorithm])
    header = {"alg": algorithm, "kid": "e1"}
    good = made.sign(f"{dump(header)}.{dump(idp.claims())}".encode())
    r, s = good[:size], good[size:]
    from jwt.utils import raw_to_der_signature

    bad = [
        b"\0" * (2 * size), b"\0" * size + s, r + b"\0" * size, b"\xff" * (2 * size), b"\0",
        good[:-1], good + b"\0", r, b"\0" + r + b"\0" + s,
        raw_to_der_signature(good, made.private.curve),
    ]  # fmt: skip
    for signature in bad:
        token = made.compact(header, idp.claims(), signature=signature)

        assert isinstance(await judge(identity, token), Rejection), signature.hex()


async def test_a_key_serves_one_algorithm(idp: IdentityProvider, key: SigningKey) -> None:
    """The key's own alg, its type and its curve: a token can't choose another."""
    own = verifier(idp, Keys(key.jwk(alg="RS256")), algorithms=["RS256", "PS256"])
    claims = idp.claims()
    wrong = key.compact({"alg": "PS256", "kid": "k1"}, claims, algorithm="PS256")

    assert isinstance(await judge(own, idp.token()), Principal)
    refused = await judge(own, wrong)
    assert isinstance(refused, Rejection)
    assert refused.detail == "the token's key may not be used with its algorithm"

    elliptic = SigningKey("k1", "ES256")
    mixed = verifier(idp, Keys(elliptic.jwk()), algorithms=["RS256", "ES256", "ES384"])
    assert isinstance(await judge(mixed, idp.token()), Rejection)
    assert isinstance(await judge(mixed, idp.token(elliptic)), Principal)
    other_hash = elliptic.compact(
        {"alg": "ES384", "kid": "k1"}, claims, signature=elliptic.sign(b"x") + b"\0" * 32
    )
    assert isinstance(await judge(mixed, other_hash), Rejection)


async def test_foreign_tokens_are_told_apart(idp: IdentityProvider, strange: SigningKey) -> None:
    """A token of another issuer or for another audience says so, for the sake of others."""
    identity = verifier(idp)

    assert isinstance(await judge(identity, idp.token(iss="https://other.test")), Foreign)
    assert isinstance(await judge(identity, idp.token(aud="other")), Foreign)
    assert not isinstance(await judge(identity, idp.token(strange)), Foreign)


async def test_the_rfc_9068_profile(idp: IdentityProvider) -> None:
    """With the profile: its typ, and every claim that it requires."""
    identity = verifier(idp, profile="at+jwt")
    typed = {"typ": "at+jwt"}

    assert isinstance(await judge(identity, idp.token(header=typed)), Principal)
    for header in ({"typ": "JWT"}, {"typ": None}):
        assert isinstance(await judge(identity, idp.token(header=header)), Rejection)
    for claim in ("sub", "client_id", "iat", "jti"):
        verdict = await judge(identity, idp.token(header=typed, **{claim: None}))
        assert isinstance(verdict, Rejection)
        assert claim in verdict.detail


async def test_leeway(idp: IdentityProvider) -> None:
    """Clocks may be apart by the leeway, in both directions; a remembered token ends as exactly."""
    clock = ManualClock(1_000_000.0)
    identity = verifier(idp, leeway="10s")
    identity._wall = clock.wall
    token = idp.token(iat=1_000_000, nbf=1_000_005, exp=1_000_100)

    verdicts = {}
    for at in (999_990, 999_994.9, 999_995, 1_000_109.9, 1_000_110):
        clock.now = at
        verdicts[at] = isinstance(await judge(identity, token), Principal)
    assert verdicts == {
        999_990: False, 999_994.9: False, 999_995: True, 1_000_109.9: True, 1_000_110: False,
    }  # fmt: skip


async def test_require(idp: IdentityProvider) -> None:
    """Claims that the identity asks for: proved, and not welcome, is 403."""
    identity = verifier(idp, require={"tenant": ["acme", "globex"], "realm_access.roles": "staff"})
    roles = {"roles": ["staff", "dev"]}

    assert isinstance(
        await judge(identity, idp.token(tenant="acme", realm_access=roles)), Principal
    )
    refused = await judge(identity, idp.token(tenant="initech", realm_access=roles))
    assert refused.kind.code == "not_permitted"
    refused = await judge(identity, idp.token(tenant="acme", realm_access={"roles": "staffing"}))
    assert refused.kind.status == 403


async def test_a_withdrawn_key_takes_its_tokens_along(idp: IdentityProvider) -> None:
    """What was remembered is forgotten with its key, and only that."""
    identity = verifier(idp)
    good = identity._source.keys
    assert isinstance(good, KeySet)
    await judge(identity, idp.token())
    identity._keys_changed(good.digests())
    assert len(identity.remembered) == 1
    identity._keys_changed(frozenset())

    assert len(identity.remembered) == 0


async def test_an_unknown_kid_is_looked_for(idp: IdentityProvider, strange: SigningKey) -> None:
    """Only a name that no key has makes the gateway ask; a bad signature does not."""
    identity = verifier(idp)
    await judge(identity, idp.token(strange))
    assert identity._source.asked == []  # type: ignore[attr-defined]
    await judge(identity, idp.token(strange, header={"kid": "new"}))

    assert identity._source.asked == ["new"]  # type: ignore[attr-defined]


@given(st.binary(max_size=300), st.sampled_from([b"", b"Bearer ", b"bearer  "]))
def test_any_bytes(value: bytes, scheme: bytes) -> None:
    """Whatever stands in the field: a verdict, never an exception, never a principal."""
    identity = verifier(IdentityProvider(_KEY))
    verdict = identity.authenticate(exchange(scheme + value))

    assert verdict is None or isinstance(verdict, Rejection)


@given(
    _JSON,
    st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "client_id", "scope", "cnf", "jti"]),
)
def test_any_claim(value: Any, name: str) -> None:
    """A signed token with anything at all for one claim: a verdict, and no surprise later on."""
    idp = IdentityProvider(_KEY)
    claims = {**idp.claims(), name: value}
    token = idp.key.compact(_HEADER, claims)
    verdict = verifier(idp).authenticate(exchange(f"Bearer {token}".encode()))

    if isinstance(verdict, Principal):
        assert verdict.consumer
        field_value(value)
