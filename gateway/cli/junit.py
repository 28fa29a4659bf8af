"""The verdicts of `lockgate chaos` as a JUnit report, which CI servers show as tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement

from gateway.chaos.report import Report


def write(path: Path, reports: Sequence[Report]) -> None:
    """A suite for each scenario, a case for each route. Raises OSError."""
    root = Element("testsuites")
    for report in reports:
        suite = SubElement(root, "testsuite", name=report.scenario, time=f"{report.seconds:.3f}")
        counts = {"tests": 0, "failures": 0, "skipped": 0}
        for route in report.routes:
            case = SubElement(suite, "testcase", classname=report.scenario, name=route.route)
            counts["tests"] += 1
            if route.skipped:
                SubElement(case, "skipped", message=route.skipped)
                counts["skipped"] += 1
            missed = [check for check in route.checks if not check.ok]
            for check in missed[:1]:
                told = [f"{each.name}: {each.wanted}; seen: {each.seen}" for each in missed]
                SubElement(case, "failure", message=check.name).text = "\n".join(told)
                counts["failures"] += 1
        for name, count in counts.items():
            suite.set(name, str(count))
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
