"""Cron expressions and time zones, as the configuration gives them: read and refused here.

Five fields as in crontab(5): minute, hour, day of month, month, day of week; and the usual names
for some of them (`@daily`). What a tick is lies in `delivery/schedules/ticks.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator, WithJsonSchema

from gateway.config.suggest import did_you_mean
from gateway.config.types import refuse

_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FORM: Final = "expected five fields: minute, hour, day of month, month, day of week"
_MAX_LENGTH: Final = 256
# A moment to count from when it is tried whether an expression ever comes: any would do.
_SOME_TIME: Final = datetime(2024, 1, 1)  # noqa: DTZ001 - in no time zone, as in every one


def parse_cron(value: str) -> str:
    """The expression as five fields with one space between them. Raises what the loader reports."""
    fields = value.split()
    if len(fields) == 1 and fields[0].startswith("@"):
        name = fields[0].lower()
        if name not in _NAMED:
            raise refuse("cron", "there is no such name", did_you_mean(name, _NAMED) or _FORM)
        fields = _NAMED[name].split()
    if len(fields) != 5 or len(value) > _MAX_LENGTH:
        raise refuse("cron", _FORM, 'as in "0 2 * * *", every day at two')
    text = " ".join(fields)
    # Here, as few configurations have schedules.
    from cronsim import CronSim, CronSimError  # noqa: PLC0415

    try:
        next(CronSim(text, _SOME_TIME))
    except StopIteration:
        raise refuse("cron", "there is no such day in the next 50 years") from None
    except CronSimError as error:
        reason = str(error).removeprefix("Bad ")
        raise refuse("cron", f"the field for the {reason} can't be read", _FORM) from None
    except (AssertionError, TypeError, ValueError):
        raise refuse("cron", "this is no cron expression", _FORM) from None
    return text


def parse_zone(value: str) -> str:
    """The name of a time zone. Raises what the loader reports."""
    from zoneinfo import ZoneInfo, available_timezones  # noqa: PLC0415 - see above

    try:
        ZoneInfo(value)
    except (OSError, ValueError, KeyError):
        hint = did_you_mean(value, available_timezones()) or "as in Europe/Madrid or UTC"
        raise refuse("timezone", "there is no such time zone", hint) from None
    return value


Cron = Annotated[
    str,
    AfterValidator(parse_cron),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A cron expression of five fields, or @hourly, @daily, @weekly, "
            "@monthly, @yearly.",
            "pattern": r"^\s*(@[A-Za-z]+|\S+(\s+\S+){4})\s*$",
            "examples": ["0 2 * * *", "*/5 * * * *", "30 6 * * MON-FRI", "0 0 L * *"],
        },
        mode="validation",
    ),
]
"""Five fields, brought to one form."""

Zone = Annotated[
    str,
    AfterValidator(parse_zone),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A time zone of the IANA database.",
            "examples": ["Europe/Madrid", "America/New_York", "UTC"],
        },
        mode="validation",
    ),
]
"""The name of a time zone that there is."""
