"""Header fields that people may set or remove in a configuration, and the values they may give.

Refused is what would be ignored or do harm: fields that belong to one hop or frame the message,
Host, and those that the gateway writes by rule.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from gateway.config.model_route import FieldName
from gateway.config.types import refuse
from gateway.http1.fields import FORWARDED_FIELDS, HOP_FIELDS, PROXY_FIELDS

_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?|", re.ASCII)


def _own_field(name: str) -> str:
    key = name.lower().encode("ascii")
    if key in HOP_FIELDS:
        raise refuse("field_name", f"{name} belongs to the connection and is written by the server")
    if key == b"host":
        raise refuse("field_name", "Host is written by the gateway", "use rewrite: {host: ...}")
    if key in FORWARDED_FIELDS or key in PROXY_FIELDS or key == b"via":
        raise refuse("field_name", f"{name} is written by the gateway, by rule")
    return name


def is_plain_value(value: str) -> bool:
    """Whether a field may hold it. RFC 9110 section 5.5: visible ASCII, spaces and tabs between.

    Control characters would end the field early on the wire; anything beyond ASCII has no encoding
    that both ends agree on.
    """
    return _VALUE.fullmatch(value) is not None


def _plain_value(value: str) -> str:
    if not is_plain_value(value):
        raise refuse(
            "field_value", "a header field's value is visible ASCII, with spaces only inside"
        )
    return value


EndToEndField = Annotated[FieldName, AfterValidator(_own_field)]
"""The name of a field that passes from end to end and may be set by a configuration."""

PlainValue = Annotated[str, AfterValidator(_plain_value)]
"""A field value that is safe on the wire."""
