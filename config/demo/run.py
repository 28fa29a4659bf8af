"""`make run`: the demo upstream and the gateway in front of it, until Ctrl-C.

Starts two processes, waits until both answer, says what listens where, and stops both together. It
uses the standard library alone and decides nothing about the gateway: that is in the YAML file.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
READY_WITHIN_S = 20.0
STOP_WITHIN_S = 40.0
Address = tuple[str, int]


def address(text: str) -> Address:
    """`host:port` as the pair that sockets take."""
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def in_use(where: Address) -> bool:
    """Whether somebody listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError:
            return True
    return False


def answers(url: str) -> bool:
    """Whether a GET there brings a 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_until_ready(processes: list[subprocess.Popen[bytes]], urls: list[str]) -> str:
    """Wait for every URL; the empty string, or why it will not come to that."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not all(answers(url) for url in urls):
        if any(process.poll() is not None for process in processes):
            return "A process ended while starting; its message is above."
        if time.monotonic() > deadline:
            return f"Not ready within {READY_WITHIN_S:.0f} s."
        time.sleep(0.05)
    return ""


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask each to stop, the gateway first so that it can drain into a living upstream."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def banner(listen: str, admin: str, orders: str, config: Path) -> str:
    """What listens where, and four lines to try."""
    return f"""
Lockgate is ready.
  gateway   http://{listen}   routes of {config}
  admin     http://{admin}   /metrics  /livez  /readyz
  upstream  http://{orders}   the demo orders service

Try:
  curl -i http://{listen}/v1/orders
  curl -i http://{listen}/v1/orders -H 'Content-Type: application/json' -d '{{"lines":[{{"sku":"A-1","quantity":3}}]}}'
  curl -i 'http://{listen}/v1/slow?seconds=3'
  curl -i http://{listen}/v1/events/orders -H 'Content-Type: application/json' -d '{{"event_id":"e-1","lines":[{{"sku":"A-1","quantity":3}}]}}'

Ctrl-C stops both.
"""  # noqa: E501  a line to paste may not be broken


def arguments() -> argparse.Namespace:
    """The command line; addresses come from the same variables that the YAML file reads."""
    parser = argparse.ArgumentParser(description="Run the gateway with the demo upstream.")
    parser.add_argument("--config", type=Path, default=Path("config/gateway.yaml"))
    env = os.environ
    parser.add_argument("--listen", default=env.get("LOCKGATE_LISTEN") or "127.0.0.1:8080")
    parser.add_argument("--admin", default=env.get("LOCKGATE_ADMIN") or "127.0.0.1:9901")
    parser.add_argument("--orders", default="127.0.0.1:8081")
    return parser.parse_args()


def main() -> int:
    """0 after Ctrl-C or SIGTERM, 1 if it could not start or one of the two ended by itself."""
    options = arguments()
    for what, where in (
        ("the gateway", options.listen),
        ("the admin listener", options.admin),
        ("the demo upstream", options.orders),
    ):
        if in_use(address(where)):
            print(
                f"Port in use: {what} needs {where}, where something listens already.",
                file=sys.stderr,
            )
            return 1
    # Both end in KeyboardInterrupt; a shell that starts this in the background had SIGINT ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environ = os.environ | {
        "LOCKGATE_LISTEN": options.listen,
        "LOCKGATE_ADMIN": options.admin,
        "ORDERS_URL": f"http://{options.orders}",
        "ALERTS_URL": f"http://{options.orders}/alerts",
    }
    host, port = address(options.orders)
    # Sessions of their own: Ctrl-C reaches this process alone, which stops them in order.
    upstream = subprocess.Popen(
        [sys.executable, str(HERE / "orders.py"), "--host", host, "--port", str(port)],
        start_new_session=True,
    )
    gateway = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", "--config", str(options.config)],
        env=environ,
        start_new_session=True,
    )
    processes = [gateway, upstream]
    try:
        urls = [f"http://{options.orders}/healthz", f"http://{options.admin}/readyz"]
        trouble = wait_until_ready(processes, urls)
        if trouble:
            print(trouble, file=sys.stderr)
            return 1
        print(banner(options.listen, options.admin, options.orders, options.config), flush=True)
        while all(process.poll() is None for process in processes):
            time.sleep(0.2)
        print("One of the two processes ended; stopping the other.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        stop(processes)


if __name__ == "__main__":
    sys.exit(main())
