"""Hostile tokens, by name: each a function of a provider and of a key that is not the provider's.

Used where tokens are judged alone (`test_attacks.py`), and against whole gateways.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.idp import IdentityProvider, SigningKey, b64, dump

Attack = Callable[[IdentityProvider, SigningKey], str]


def _header(**changes: Any) -> Attack:
    return lambda idp, _: idp.token(header=changes)


def _raw_payload(text: str) -> Attack:
    """Good claims with this put before them, as text, so that members can stand there twice."""

    def make(idp: IdentityProvider, _: SigningKey) -> str:
        rest = json.dumps(idp.claims())[1:]
        return idp.key.compact({"alg": "RS256", "kid": "k1"}, "{" + text + rest)

    return make


def _raw_header(text: str) -> Attack:
    return lambda idp, _: idp.key.compact(text, idp.claims())


def _hmac_of_public_key(form: Any, encoding: Any) -> Attack:
    def make(idp: IdentityProvider, _: SigningKey) -> str:
        secret = idp.key.private.public_key().public_bytes(encoding, form)
        head = f"{dump({'alg': 'HS256', 'typ': 'JWT', 'kid': 'k1'})}.{dump(idp.claims())}"
        return f"{head}.{b64(hmac.new(secret, head.encode(), hashlib.sha256).digest())}"

    return make


def _unsigned(algorithm: str) -> Attack:
    return lambda idp, _: f"{dump({'alg': algorithm, 'kid': 'k1'})}.{dump(idp.claims())}."


def _none_with_signature(idp: IdentityProvider, _: SigningKey) -> str:
    return idp.key.compact({"alg": "none", "kid": "k1"}, idp.claims(), algorithm="RS256")


def _signature(value: bytes) -> Attack:
    return lambda idp, _: idp.key.compact(
        {"alg": "RS256", "kid": "k1"}, idp.claims(), signature=value
    )


def _changed(idp: IdentityProvider, _: SigningKey) -> str:
    head, _payload, signature = idp.token().split(".")
    return f"{head}.{dump(idp.claims(sub='root'))}.{signature}"


def _embedded_jwk(idp: IdentityProvider, strange: SigningKey) -> str:
    return idp.token(strange, header={"jwk": strange.jwk()})


def _jku(idp: IdentityProvider, strange: SigningKey) -> str:
    return idp.token(strange, header={"jku": f"{idp.issuer}/stolen", "kid": "other"})


def _x5u(idp: IdentityProvider, strange: SigningKey) -> str:
    return idp.token(strange, header={"x5u": f"{idp.issuer}/stolen.pem"})


def _x5c(idp: IdentityProvider, strange: SigningKey) -> str:
    return idp.token(strange, header={"x5c": ["MIIB"], "kid": None})


def _with_tail(tail: str) -> Attack:
    return lambda idp, _: idp.token() + tail


def _spare_bits(idp: IdentityProvider, _: SigningKey) -> str:
    """The same signature, spelt with bits that mean nothing: 256 bytes leave four of them."""
    token = idp.token()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = letters.index(token[-1])
    assert last % 16 == 0
    return token[:-1] + letters[last + 1]


def _standard_alphabet(idp: IdentityProvider, _: SigningKey) -> str:
    for number in range(200):
        token = idp.token(jti=str(number))
        if "-" in token or "_" in token:
            return token.replace("-", "+").replace("_", "/")
    raise AssertionError


def _jwe(idp: IdentityProvider, _: SigningKey) -> str:
    header = dump({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "k1"})
    return f"{header}.{b64(b'k' * 256)}.{b64(b'i' * 12)}.{b64(b'c' * 64)}.{b64(b't' * 16)}"


def _jwe_header_on_jws(idp: IdentityProvider, _: SigningKey) -> str:
    return idp.token(header={"enc": "A256GCM"})


def _json_serialization(idp: IdentityProvider, _: SigningKey) -> str:
    head, payload, signature = idp.token().split(".")
    return b64(json.dumps({"protected": head, "payload": payload, "signature": signature}).encode())


def _nested(idp: IdentityProvider, _: SigningKey) -> str:
    return idp.key.compact({"alg": "RS256", "kid": "k1", "cty": "JWT"}, f'"{idp.token()}"')


def _deep(levels: int) -> Attack:
    return _raw_payload('"deep":' + "[" * levels + "]" * levels + ",")


def _oversized(idp: IdentityProvider, _: SigningKey) -> str:
    return idp.token(padding="x" * 9000)


def _encryption_key(idp: IdentityProvider, _: SigningKey) -> str:
    return idp.token(header={"kid": "enc"})


DER, PEM = Encoding.DER, Encoding.PEM
SPKI, PKCS1 = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1

ATTACKS: dict[str, Attack] = {
    # Algorithms.
    "none": _unsigned("none"),
    "none in capitals": _unsigned("None"),
    "none with escapes": _raw_header('{"alg":"\\u006eone","kid":"k1"}'),
    "no signature": _unsigned("RS256"),
    "none with a good signature": _none_with_signature,
    "alg is empty": _unsigned(""),
    "alg in lower case": _raw_header('{"alg":"rs256","kid":"k1"}'),
    "alg with a space": _raw_header('{"alg":"RS256 ","kid":"k1"}'),
    "no alg": _raw_header('{"typ":"JWT","kid":"k1"}'),
    "alg is a list": _raw_header('{"alg":["RS256"],"kid":"k1"}'),
    "alg is null": _raw_header('{"alg":null,"kid":"k1"}'),
    "HMAC with the public key, PEM": _hmac_of_public_key(SPKI, PEM),
    "HMAC with the public key, PKCS#1": _hmac_of_public_key(PKCS1, PEM),
    "HMAC with the public key, DER": _hmac_of_public_key(SPKI, DER),
    "another algorithm of the same key": lambda idp, _: idp.key.compact(
        {"alg": "PS256", "kid": "k1"}, idp.claims(), algorithm="PS256"),
    "a hash that is not listed": lambda idp, _: idp.key.compact(
        {"alg": "RS512", "kid": "k1"}, idp.claims(), algorithm="RS512"),
    # Keys.
    "another key": lambda idp, strange: idp.token(strange),
    "embedded jwk": _embedded_jwk,
    "embedded jwk without kid": lambda idp, strange: idp.token(
        strange, header={"jwk": strange.jwk(), "kid": None}),
    "jku": _jku,
    "x5u": _x5u,
    "x5c": _x5c,
    "kid is a path": lambda idp, strange: idp.token(strange, header={"kid": "../../dev/null"}),
    "kid is SQL": lambda idp, strange: idp.token(strange, header={"kid": "x' UNION SELECT 'k'--"}),
    "kid is a URL": lambda idp, strange: idp.token(strange, header={"kid": "http://127.0.0.1:1/"}),
    "kid is a number": _header(kid=1),
    "kid is a list": _header(kid=["k1"]),
    "kid is null": _raw_header('{"alg":"RS256","kid":null}'),
    "kid is empty": _header(kid=""),
    "kid is very long": _header(kid="k" * 300),
    "a key for encryption": _encryption_key,
    # Signatures.
    "claims changed": _changed,
    "signature of zeros": _signature(b"\0" * 256),
    "signature too short": _signature(b"\x01"),
    "signature too long": lambda idp, _: idp.token() + b64(b"x" * 30),
    "signature cut off": lambda idp, _: idp.token()[:-8],
    # Form.
    "JWE": _jwe,
    "a JWE's header": _jwe_header_on_jws,
    "JSON serialization": _json_serialization,
    "a token in a token": _nested,
    "padded": _with_tail("=="),
    "spare bits": _spare_bits,
    "standard base64": _standard_alphabet,
    "a dot too many": _with_tail("."),
    "a dot at the front": lambda idp, _: "." + idp.token(),
    "two parts": lambda idp, _: idp.token().rpartition(".")[0],
    "header is no JSON": lambda idp, _: idp.key.compact("hello", idp.claims()),
    "header is a list": lambda idp, _: idp.key.compact("[]", idp.claims()),
    "payload is a list": lambda idp, _: idp.key.compact({"alg": "RS256", "kid": "k1"}, "[]"),
    "payload is empty": lambda idp, _: idp.key.compact({"alg": "RS256", "kid": "k1"}, "{}"),
    "payload ends early": lambda idp, _: idp.key.compact(
        {"alg": "RS256", "kid": "k1"}, json.dumps(idp.claims())[:-1]),
    "payload with a tail": lambda idp, _: idp.key.compact(
        {"alg": "RS256", "kid": "k1"}, json.dumps(idp.claims()) + "{}"),
    "payload with a BOM": lambda idp, _: idp.key.compact(
        {"alg": "RS256", "kid": "k1"}, "\ufeff" + json.dumps(idp.claims())),
    "oversized": _oversized,
    "deep": _deep(100),
    "very deep": _deep(2500),
    "alg twice": _raw_header('{"alg":"none","alg":"RS256","kid":"k1"}'),
    "alg twice, once escaped": _raw_header('{"\\u0061lg":"RS256","alg":"RS256","kid":"k1"}'),
    "sub twice": _raw_payload('"sub":"root",'),
    "iss twice": _raw_payload('"iss":"https://evil.test",'),
    "nested member twice": _raw_payload('"a":{"b":1,"b":2},'),
    "half a surrogate": _raw_payload('"name":"\\ud800",'),
    "a control character": _raw_payload('"name":"a\nb",'),
    # Header members.
    "crit": _header(crit=["exp"], exp=1),
    "crit is empty": _header(crit=[]),
    "crit with b64": _header(crit=["b64"], b64=False),
    "zip": _header(zip="DEF"),
    "typ of a logout token": _header(typ="logout+jwt"),
    "typ of a DPoP proof": _header(typ="dpop+jwt"),
    "typ is a number": _header(typ=1),
    # Claims.
    "no iss": lambda idp, _: idp.token(iss=None),
    "another iss": lambda idp, _: idp.token(iss="https://evil.test"),
    "iss with a slash": lambda idp, _: idp.token(iss=idp.issuer + "/"),
    "iss as prefix": lambda idp, _: idp.token(iss=idp.issuer + ".evil.test"),
    "iss in a list": lambda idp, _: idp.token(iss=[idp.issuer]),
    "no aud": lambda idp, _: idp.token(aud=None),
    "another aud": lambda idp, _: idp.token(aud="billing-api"),
    "aud is a substring": lambda idp, _: idp.token(aud="orders"),
    "aud is a superstring": lambda idp, _: idp.token(aud="orders-api-admin"),
    "aud with a space": lambda idp, _: idp.token(aud="orders-api "),
    "aud joined": lambda idp, _: idp.token(aud="orders-api,billing-api"),
    "aud list is empty": lambda idp, _: idp.token(aud=[]),
    "aud list holds a number": lambda idp, _: idp.token(aud=["orders-api", 1]),
    "aud is an object": lambda idp, _: idp.token(aud={"orders-api": True}),
    "no exp": lambda idp, _: idp.token(exp=None),
    "expired": lambda idp, _: idp.token(exp=1),
    "exp is text": lambda idp, _: idp.token(exp=str(idp.claims()["exp"])),
    "exp is true": lambda idp, _: idp.token(exp=True),
    "exp is null": lambda idp, _: _number(idp, "exp", "null"),
    "exp is NaN": lambda idp, _: idp.token(exp=float("nan")),
    "exp is Infinity": lambda idp, _: idp.token(exp=float("inf")),
    "exp is 1e999": lambda idp, _: _number(idp, "exp", "1e999"),
    "exp is huge": lambda idp, _: _number(idp, "exp", "9" * 400),
    "exp is of 5000 digits": lambda idp, _: _number(idp, "exp", "9" * 5000),
    "exp after the end of time": lambda idp, _: _number(idp, "exp", "253402300800"),
    "exp is negative": lambda idp, _: idp.token(exp=-1),
    "exp is a list": lambda idp, _: idp.token(exp=[idp.claims()["exp"]]),
    "nbf in the future": lambda idp, _: idp.token(nbf=idp.claims()["exp"] - 60),
    "nbf is text": lambda idp, _: idp.token(nbf="0"),
    "nbf is null": lambda idp, _: _number(idp, "nbf", "null"),
    "iat in the future": lambda idp, _: idp.token(iat=idp.claims()["exp"] - 60),
    "iat is text": lambda idp, _: idp.token(iat="0"),
    "no consumer": lambda idp, _: idp.token(client_id=None, sub=None),
    "consumer is a list": lambda idp, _: idp.token(client_id=["root"]),
    "consumer is an object": lambda idp, _: idp.token(client_id={"a": 1}),
    "consumer is very long": lambda idp, _: idp.token(client_id="x" * 600),
    "scope is an object": lambda idp, _: idp.token(scope={"orders:read": True}),
    "scope list holds a number": lambda idp, _: idp.token(scope=["orders:read", 1]),
    "bound to a certificate": lambda idp, _: idp.token(cnf={"x5t#S256": b64(b"x" * 32)}),
    "bound to a key": lambda idp, _: idp.token(cnf={"jkt": b64(b"x" * 32)}),
    "cnf is text": lambda idp, _: idp.token(cnf="x"),
    "cnf is null": lambda idp, _: _number(idp, "cnf", "null"),
    "cnf is empty": lambda idp, _: idp.token(cnf={}),
}  # fmt: skip


def _number(idp: IdentityProvider, name: str, literal: str) -> str:
    """Good claims with this JSON literal for one of them."""
    claims = json.dumps(idp.claims(**{name: "HERE"})).replace('"HERE"', literal)
    return idp.key.compact({"alg": "RS256", "kid": "k1"}, claims)
