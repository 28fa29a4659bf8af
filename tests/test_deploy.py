"""The files for operators: what they name exists, and what they promise holds."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from gateway.observability import metrics
from gateway.observability.snapshot import Declaration, Kind

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
IMAGE_PORTS = {"8080", "9901"}


def families() -> dict[str, Declaration]:
    return {each.name: each for each in metrics._DECLARATIONS}


def series() -> dict[str, set[str]]:
    """Every series that /metrics may show, with the labels it has."""
    shown: dict[str, set[str]] = {}
    for name, family in families().items():
        labels = set(family.labels)
        if family.kind is Kind.HISTOGRAM:
            shown |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels}
            shown[f"{name}_count"] = labels
        else:
            shown[name] = labels
    return shown


def expressions() -> dict[str, str]:
    """Every PromQL expression under deploy/, by where it stands."""
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    found = {
        f"alert {rule['alert']}": rule["expr"]
        for group in alerts["groups"]
        for rule in group["rules"]
    }
    board = dashboard()
    for panel in board["panels"]:
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for annotation in board["annotations"]["list"]:
        found[f"annotation {annotation['name']}"] = annotation["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found[f"variable {variable['name']}"] = variable["query"]["query"]
    return found


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads((DEPLOY / "grafana" / "lockgate.json").read_text())
    return board


def image_steps() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_steps", DEPLOY / "check_image_steps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("where", "expression"), expressions().items())
def test_metrics_exist(where: str, expression: str) -> None:
    """An alert or panel asks for metrics and labels that the gateway has."""
    known = series()
    for name, selectors in re.findall(r"\b(gateway_\w+)(?:\{([^}]*)\})?", expression):
        assert name in known, where
        for label in re.findall(r"(\w+)(?:=|!=|=~|!~)\"", selectors):
            assert label in known[name], where
    grouped = re.findall(r"by \(([^)]*)\)", expression)
    labels = set.union({"instance", "le"}, *(known[n] for n in known if n in expression))

    assert {label.strip() for each in grouped for label in each.split(",")} <= labels, where


def test_every_alert_explains_itself() -> None:
    """Each alert has a severity, a summary and a description."""
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    for group in alerts["groups"]:
        for rule in group["rules"]:
            assert {"summary", "description"} <= rule["annotations"].keys(), rule["alert"]
            assert rule["labels"]["severity"] in {"page", "warn", "info"}, rule["alert"]


def test_dashboard_can_be_imported_anywhere() -> None:
    """It names no data source of its own, and every panel has a unit and a description."""
    board = dashboard()

    assert board["id"] is None
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_dockerfile_keeps_its_promises() -> None:
    """Two stages, a numeric user, exec forms, SIGTERM."""
    text = (DEPLOY.parent / "Dockerfile").read_text()

    assert image_steps().faults(text) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("USER 65532:65532", "USER root", "USER is not a number other than 0"),
        ("STOPSIGNAL SIGTERM", "", "STOPSIGNAL is not SIGTERM"),
        ('CMD ["run"]', "CMD run", "CMD is not in exec form"),
        (
            'CMD ["lockgate", "healthcheck"]',
            "CMD lockgate healthcheck",
            "there is no HEALTHCHECK in exec form",
        ),
    ],
)
def test_broken_dockerfile_is_noticed(old: str, new: str, fault: str) -> None:
    """The check of the Dockerfile can fail."""
    text = (DEPLOY.parent / "Dockerfile").read_text()
    assert old in text

    assert image_steps().faults(text.replace(old, new)) == [fault]


KUBERNETES = ("sidecar.yaml", "worker.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


def pod(name: str) -> dict[str, Any]:
    found = next(each for each in documents(name) if each["kind"] == "Deployment")
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


def containers(name: str) -> list[dict[str, Any]]:
    return [*pod(name).get("initContainers", []), *pod(name)["containers"]]


def test_sidecar_is_native() -> None:
    """The gateway outlives the service and has its probes."""
    gateway = containers("sidecar.yaml")[0]

    assert gateway["restartPolicy"] == "Always"
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= gateway.keys()
    assert {str(port["containerPort"]) for port in gateway["ports"]} == IMAGE_PORTS


def test_worker_takes_no_traffic() -> None:
    """It runs the worker, which has an admin port and its probes alone."""
    [worker] = containers("worker.yaml")

    assert worker["args"] == ["worker"]
    assert {"readinessProbe", "livenessProbe"} <= worker.keys()
    assert [port["containerPort"] for port in worker["ports"]] == [9901]
    config = yaml.safe_load(documents("worker.yaml")[0]["data"]["gateway.yaml"])
    assert config["server"]["deliver"] is False
    assert config["store"]["url"].startswith("redis://")


@pytest.mark.parametrize("name", KUBERNETES)
def test_containers_are_confined(name: str) -> None:
    """They can write nowhere and are nobody."""
    for container in containers(name):
        security = container["securityContext"]
        assert security["runAsUser"] > 0
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", KUBERNETES)
def test_grace_is_longer_than_the_drain(name: str) -> None:
    """Kubernetes waits longer than the gateway needs at most to go down in order."""
    config = yaml.safe_load(documents(name)[0]["data"]["gateway.yaml"])
    delays = [v["value"] for v in containers(name)[0]["env"] if v["name"].endswith("DELAY")]
    seconds = [
        int(text.removesuffix("s")) for text in (config["server"]["timeouts"]["drain"], *delays)
    ]

    assert pod(name)["terminationGracePeriodSeconds"] > sum(seconds)


@pytest.mark.parametrize("name", KUBERNETES)
def test_configmap_is_accepted(name: str, tmp_path: Path) -> None:
    """`lockgate check` has nothing against what the ConfigMap holds."""
    mounted = "/run/secrets/lockgate/admin-token"
    text = documents(name)[0]["data"]["gateway.yaml"]
    assert mounted in text
    (tmp_path / "admin-token").write_text("only-for-this-test")
    config = tmp_path / "gateway.yaml"
    config.write_text(text.replace(mounted, str(tmp_path / "admin-token")))
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "check", str(config)],
        cwd=DEPLOY.parent,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert told.returncode == 0, told.stdout + told.stderr


def test_compose_publishes_on_loopback_only() -> None:
    """Trying it out opens nothing to the network."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
