"""The token endpoint's language (RFC 6749 sections 2.3.1, 4.4 and 5): pure, bytes and values.

What the endpoint answers is bounded and checked like anything that comes from outside, because it
becomes a header field. No text here repeats a secret, or what the endpoint wrote.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus

if TYPE_CHECKING:
    from gateway.policies.upstream_auth.config import ClientCredentials

MAX_ANSWER: Final = 256 * 1024
_MAX_TOKEN: Final = 16 * 1024
# RFC 6750 section 2.1, and what else endpoints are seen to give; no space, no control character.
_TOKEN: Final = re.compile(r"[!-~]+", re.ASCII)
_ERROR: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)


class NoToken(Exception):
    """The endpoint gave no token; the text says why, in our words."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A token, and its life in seconds from when it was asked for; None if that was not told."""

    token: str
    life: float | None


def token_request(config: ClientCredentials) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Header fields and form of the request for a token."""
    secret = config.client_secret.get_secret_value()
    form: list[tuple[str, str]] = [("grant_type", "client_credentials")]
    headers: dict[str, str] = {}
    if config.client_auth == "basic":
        # Both parts are form-encoded first (RFC 6749 section 2.3.1), so that a colon stays one.
        pair = f"{quote_plus(config.client_id)}:{quote_plus(secret)}"
        headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    else:
        form += [("client_id", config.client_id), ("client_secret", secret)]
    if config.scopes:
        form.append(("scope", " ".join(config.scopes)))
    if config.audience:
        form.append(("audience", config.audience))
    resources = [config.resource] if isinstance(config.resource, str) else config.resource
    form += [("resource", each) for each in resources]
    form += config.params.items()
    return headers, form


def read_answer(status: int, body: bytes) -> Granted:
    """The token in the endpoint's answer. Raises NoToken."""
    data = _json_object(body)
    if status != 200:
        raise NoToken(f"it answered {status}{_reason(data)}")
    token = data.get("access_token")
    if not isinstance(token, str) or len(token) > _MAX_TOKEN or not _TOKEN.fullmatch(token):
        raise NoToken("its answer holds no usable access_token")
    kind = data.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise NoToken("its token is no bearer token")
    return Granted(token, _life(data.get("expires_in")))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _reason(data: dict[str, Any]) -> str:
    """The error's code, such as invalid_client (RFC 6749 section 5.2), if it is one."""
    code = data.get("error")
    return f" {code}" if isinstance(code, str) and _ERROR.fullmatch(code) else ""


def _life(value: object) -> float | None:
    """The token's life; None for what tells nothing: absent, zero, negative, no number.

    None of these means "for ever", as some clients take it.
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        life = float(value)
    except OverflowError:
        return None
    return life if math.isfinite(life) and life > 0 else None
