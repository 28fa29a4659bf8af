"""The order of the built-in policies, outermost first, each with its reason.

The order of keys in YAML means nothing; this list is the only place where order is decided. A
plugin anchors itself `before` or `after` one of these names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.errors import ConfigError
from gateway.policies.base import Policy, Stage

ADMISSION: Final = (
    "correlation",  # every log line and every refusal carries the id
    "observe",  # sees refusals too; the trace must exist before anything can fail
    "audit",  # sees refusals too, and what the caller turned out to be
    "flag",  # a route that is switched off is not there, whoever asks
    "access",  # cheapest refusal first: who, by address alone
    "cors",  # a preflight carries no credentials, so it is answered before any could be asked for
    "body",  # a body that is too large is refused before anyone reads it
    "auth",  # who is calling, and may they: whatever costs more stands behind it
    "flag_group",  # needs to know who calls; nothing is counted for a route that is not there
    "rate_limit",  # needs to know who calls; before anything that costs more than counting
    "validate",  # reads the body once; what comes after never sees a malformed request
    "idempotency",  # never records what was refused further out; its answers are whole ones
    "cache",  # behind all that: nobody gets a stored answer who would not get it from upstream
    "delivery_status",  # tells of events, in place of an upstream
    "delivery",  # what it keeps has passed everything; what stands behind it delivers
)

_FIRST_END: Final = "delivery_status"

DELIVERY: Final = (
    "headers",  # what the upstream and then the client should see
    "fault",  # trouble made on purpose stands before anything that protects from trouble
    "mirror",  # copies what was sent, whichever side it goes to
    "canary",  # which upstream; everything further in is made once for each of them
    "timeout",  # absolute, set once for whatever happens further in
    "upstream_auth",  # waiting for a token counts; every attempt further in has it
    "retry",  # the loop, and its budget; an open breaker further in ends it
    "hedge",  # inside the loop and its budget, and each of its attempts is counted by the breaker
    "circuit_breaker",  # every attempt is counted, and refused before it takes a permit
    "bulkhead",  # last: a permit is for what is really at the upstream, body included
)


def arrange(plugins: Iterable[type[Policy]]) -> list[str]:
    """All policy names in the order in which they run: admission, then delivery.

    Raises ConfigError if a plugin names an unknown anchor, one of the other stage, or two anchors.
    Plugins with the same anchor stand in alphabetical order; those without one stand last in their
    stage, but before what answers by itself.
    """
    by_name = {policy.name: policy for policy in plugins}
    admission, delivery = list(ADMISSION), list(DELIVERY)
    for name in sorted(by_name):
        policy = by_name[name]
        line = admission if policy.stage is Stage.ADMISSION else delivery
        anchor = policy.before or policy.after
        if policy.before and policy.after:
            raise ConfigError(f"plugin {name} has both before and after; one anchor is enough")
        if not anchor:
            # What answers by itself is the end: a guard behind it would guard nothing.
            line.insert(line.index(_FIRST_END) if line is admission else len(line), name)
        elif anchor not in line:
            raise ConfigError(
                f"plugin {name} stands by {anchor}, which is no {policy.stage} policy"
            )
        elif policy.before:
            line.insert(line.index(anchor), name)
        else:
            line.insert(_behind(line, anchor, by_name), name)
    return [*admission, *delivery]


def _behind(line: list[str], anchor: str, by_name: dict[str, type[Policy]]) -> int:
    # Behind the anchor and the plugins that already stand after it, so that names stay sorted.
    position = line.index(anchor) + 1
    while position < len(line) and (
        line[position] in by_name and by_name[line[position]].after == anchor
    ):
        position += 1
    return position
