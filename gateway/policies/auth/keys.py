"""The public keys of an issuer, from a JWK set (RFC 7517), and which of them may verify what.

A key is used with an algorithm only if its type, curve, size, and its own `alg`, `use` and
`key_ops` allow it (RFC 8725 section 3.1). A public key can never serve as the secret of an HMAC,
because no symmetric algorithm and no symmetric key is taken at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from gateway.policies.auth.strict_json import NotStrict, parse_object

MAX_KEYS: Final = 64
# How many keys are tried for one token: several only if it names none, or they share a kid.
MAX_TRIED: Final = 4
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_EDWARDS: Final = frozenset({"Ed25519", "Ed448"})
_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_ALGORITHMS: Final[Mapping[str, Algorithm]] = get_default_algorithms()


class BadKeys(ValueError):
    """The document is no JWK set. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Key:
    """One public key. `digest` is the same for the same key with the same restrictions."""

    __slots__ = ("_material", "_own", "_type", "digest", "kid")

    def __init__(self, jwk: Mapping[str, Any], material: Any) -> None:
        self.kid: str | None = jwk.get("kid")
        self._type = str(jwk["kty"]), jwk.get("crv")
        self._own = jwk.get("alg")
        self._material = material
        shown = {name: jwk[name] for name in ("kty", "kid", "alg", "crv", "n", "e", "x", "y")
                 if name in jwk}  # fmt: skip
        self.digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).digest()

    def fits(self, algorithm: str) -> bool:
        """Whether it may be used with this algorithm."""
        kind, curve = self._type
        own = self._own
        if own == curve and algorithm == "EdDSA":
            # RFC 9864 gave EdDSA's curves names of their own, which keys may use already.
            own = algorithm
        if own is not None and own != algorithm:
            return False
        if algorithm.startswith(("RS", "PS")):
            return kind == "RSA"
        if algorithm == "EdDSA":
            return kind == "OKP" and curve in _EDWARDS
        return kind == "EC" and curve == _CURVES.get(algorithm)

    def verifies(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's. Only for an algorithm that fits."""
        try:
            return _ALGORITHMS[algorithm].verify(signing_input, self._material, signature)
        except Exception:  # noqa: BLE001 - a signature that can't even be judged is none
            return False


class KeySet:
    """All keys of an issuer that can be used. `skipped` says why others can't."""

    __slots__ = ("_by_kid", "_nameless", "keys", "skipped")

    def __init__(self, keys: Sequence[Key], skipped: Sequence[str] = ()) -> None:
        self.keys = list(keys)
        self.skipped = list(skipped)
        self._by_kid: dict[str, list[Key]] = {}
        self._nameless = [key for key in self.keys if key.kid is None]
        for key in self.keys:
            if key.kid is not None:
                self._by_kid.setdefault(key.kid, []).append(key)

    def find(self, kid: str | None, algorithm: str) -> list[Key] | None:
        """The keys to try, at most a few; empty if the key that the token names does not fit.

        None if no key has the token's name: a newer set may have one.
        """
        named: Sequence[Key] | None = self.keys if kid is None else self._by_kid.get(kid)
        if named is None:
            named = self._nameless or None
        if named is None:
            return None
        return [key for key in named if key.fits(algorithm)][:MAX_TRIED]

    def same_as(self, other: KeySet | None) -> bool:
        """Whether it has the same keys."""
        return other is not None and self.digests() == other.digests()

    def digests(self) -> frozenset[bytes]:
        """What tells its keys from others."""
        return frozenset(key.digest for key in self.keys)


def parse_keys(data: bytes) -> KeySet:
    """The key set of a JWKS document. Raises BadKeys if no key in it can verify anything."""
    try:
        document = parse_object(data)
    except NotStrict as error:
        raise BadKeys(f"the key set {error.reason}") from None
    members = document.get("keys")
    if not isinstance(members, list):
        raise BadKeys("the key set has no list of keys")
    keys: list[Key] = []
    skipped: list[str] = []
    for position, jwk in enumerate(members[:MAX_KEYS]):
        try:
            keys.append(_key(jwk))
        except BadKeys as error:
            skipped.append(f"key {position}: {error.reason}")
    if not keys:
        why = f" ({'; '.join(skipped[:3])})" if skipped else ""
        raise BadKeys(f"the key set has no key that can verify{why}")
    return KeySet(keys, skipped)


def _key(jwk: Any) -> Key:
    if not isinstance(jwk, dict):
        raise BadKeys("not an object")
    kind = jwk.get("kty")
    if kind not in _PUBLIC:
        raise BadKeys("its kty is not RSA, EC or OKP")
    if "d" in jwk or "k" in jwk:
        # Whoever could read it can sign tokens.
        raise BadKeys("a private key stands in the open; replace it")
    if jwk.get("use", "sig") != "sig":
        raise BadKeys("its use is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise BadKeys("its key_ops do not have verify")
    for name in ("kid", "alg"):
        if name in jwk and not isinstance(jwk[name], str):
            raise BadKeys(f"its {name} is not text")
    material = _material(kind, {"kty": kind, **{name: jwk.get(name) for name in _PUBLIC[kind]}})
    if kind == "RSA" and not MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS:
        raise BadKeys(f"it has {material.key_size} bits")
    return Key(jwk, material)


def _material(kind: str, public: Mapping[str, Any]) -> Any:
    if not all(isinstance(value, str) and value for value in public.values()):
        raise BadKeys("a member is missing")
    name = {"RSA": "RS256", "OKP": "EdDSA"}.get(kind, "ES256")
    try:
        return type(_ALGORITHMS[name]).from_jwk(dict(public))
    except (InvalidKeyError, ValueError, TypeError):
        raise BadKeys("it is not a key") from None
