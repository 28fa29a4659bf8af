"""The admin application's own refusals, as RFC 9457 problems.

Apart from the taxonomy of the data path: these codes never meet a client of the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

PROBLEM_TYPE = "application/problem+json"


def problem(
    status: int,
    code: str,
    title: str,
    detail: str = "",
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """An answer that says what is wrong. `members` are added to the problem."""
    body: dict[str, Any] = {
        "type": f"urn:lockgate:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
    }
    if detail:
        body["detail"] = detail
    body.update(members)
    return Response(
        msgspec.json.encode(body),
        status,
        headers=dict(headers or {}),
        media_type=PROBLEM_TYPE,
    )
