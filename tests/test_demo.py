"""`make run` as a newcomer meets it: one command, three lines that work, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parent.parent
RUN = [sys.executable, "config/demo/run.py"]


def ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


def start(listen: int, admin: int, orders: int, data: Path) -> subprocess.Popen[str]:
    addresses = [f"--listen=127.0.0.1:{listen}", f"--admin=127.0.0.1:{admin}"]
    return subprocess.Popen(
        [*RUN, *addresses, f"--orders=127.0.0.1:{orders}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "LOCKGATE_DATA": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The public URL of a running demo; at the end Ctrl-C must stop it with exit code 0."""
    listen, admin, orders = ports(3)
    demo = start(listen, admin, orders, tmp_path_factory.mktemp("data"))
    assert demo.stdout is not None
    try:
        printed = ""
        while "Ctrl-C" not in printed:
            line = demo.stdout.readline()
            assert line, demo.communicate(timeout=30)[1]
            printed += line
        assert f"http://127.0.0.1:{listen}" in printed
        assert f"http://127.0.0.1:{admin}" in printed
        assert printed.count("curl ") == 4
        yield f"http://127.0.0.1:{listen}"
    finally:
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=50)
    assert demo.returncode == 0, errors


def test_list_of_orders(gateway: str) -> None:
    """The first line: a GET goes through, rewritten, with a correlation id."""
    answer = httpx.get(f"{gateway}/v1/orders")

    assert answer.status_code == 200
    assert answer.json()["count"] >= 2
    assert answer.headers["x-correlation-id"]


def test_new_order(gateway: str) -> None:
    """The second line: a POST arrives whole, and the order can then be read."""
    answer = httpx.post(f"{gateway}/v1/orders", json={"lines": [{"sku": "A-1", "quantity": 3}]})
    order = answer.json()

    assert answer.status_code == 201
    assert httpx.get(f"{gateway}/v1/orders/{order['id']}").json() == order


def test_slow_answer(gateway: str) -> None:
    """The third line: the route's timeout ends in a problem that says so."""
    answer = httpx.get(f"{gateway}/v1/slow?seconds=20")

    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "deadline_exceeded"


def test_an_event(gateway: str) -> None:
    """The fourth line: an event is kept, delivered with what was left out, and can be followed."""
    event = {"event_id": "e-1", "lines": [{"sku": "A-1", "quantity": 3}]}
    answer = httpx.post(f"{gateway}/v1/events/orders", json=event, headers={"Prefer": "wait=20"})

    assert answer.status_code == 200
    assert answer.json()["state"] == "delivered"
    orders = httpx.get(f"{gateway}/v1/orders").json()["items"]
    [order] = [each for each in orders if each.get("event_id") == "e-1"]
    assert (order["channel"], order["currency"], order["priority"]) == ("web", "EUR", 3)


def test_too_large_order(gateway: str) -> None:
    """The route's own limit on bodies holds."""
    answer = httpx.post(f"{gateway}/v1/orders", content=b"x" * 100_000)

    assert answer.status_code == 413


def test_events(gateway: str) -> None:
    """Server-sent events arrive one by one, in order."""
    with httpx.stream("GET", f"{gateway}/v1/orders/events?count=3&every=0.05") as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]

    assert [json.loads(line.removeprefix("data: "))["number"] for line in lines] == [1, 2, 3]


def test_websocket(gateway: str) -> None:
    """A WebSocket reaches the service and back."""
    with connect(gateway.replace("http", "ws") + "/v1/live") as live:
        live.send("hello")

        assert json.loads(live.recv(timeout=20)) == {"number": 1, "echo": "hello"}


def test_own_answer_and_disabled_route(gateway: str) -> None:
    """The gateway answers `/` itself; a route that is off matches nothing."""
    assert httpx.get(gateway).json()["gateway"] == "lockgate"
    assert httpx.get(f"{gateway}/v1/nothing-here").status_code == 404


def test_port_in_use(tmp_path: Path) -> None:
    """Somebody else's port gives one clear line and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # A port that was free a moment ago may be another test's by now: then once more.
        for _ in range(5):
            listen, admin = ports(2)
            demo = start(listen, admin, taken.getsockname()[1], tmp_path)
            output, errors = demo.communicate(timeout=30)
            if "the demo upstream needs" in errors:
                break

    assert demo.returncode == 1
    assert output == ""
    assert errors.startswith("Port in use: the demo upstream needs 127.0.0.1:")
    assert len(errors.splitlines()) == 1
