"""All cases in one list, for whoever runs them: against the server alone, or the whole gateway."""

from __future__ import annotations

from tests.conformance import (
    cases_chunked,
    cases_connection,
    cases_fields,
    cases_framing,
    cases_request_line,
    cases_target,
)
from tests.conformance.case import Case

CASES: list[Case] = [
    *cases_request_line.CASES,
    *cases_target.CASES,
    *cases_fields.HOST,
    *cases_fields.FIELDS,
    *cases_framing.LENGTH,
    *cases_framing.CODING,
    *cases_chunked.CASES,
    *cases_connection.CASES,
]
"""Cases that hold for a server and for a gateway as a whole."""

SERVER_CASES: list[Case] = [*CASES, *cases_target.OPTIONS_CASES]
"""Those and the few that reach an application, but no upstream."""


def name_of(case: Case) -> str:
    """The case's name in a test report."""
    return f"{case.section}: {case.name}"
