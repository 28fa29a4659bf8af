"""nginx, as a peer and as the upstream of every measurement."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from bench.peers.peer import Command, Job, Peer

ITEM_BYTES = 1024

# One worker; the log is buffered and flushed at least every second, as the other proxies do it. The
# larger buffers are in its favour: with the built-in ones, large bodies take three times as long.
_PROXY = """
{user}daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {work}/nginx.pid;
error_log {work}/nginx-error.log warn;
events {{ worker_connections 32768; }}
http {{
  log_format json escape=json '{{"time":"$time_iso8601","client":"$remote_addr",'
    '"method":"$request_method","path":"$request_uri","status":$status,"bytes_in":$request_length,'
    '"bytes_out":$body_bytes_sent,"seconds":$request_time,"upstream":"$upstream_addr",'
    '"upstream_seconds":"$upstream_response_time","correlation_id":"$request_id",'
    '"user_agent":"$http_user_agent"}}';
  access_log {access_log} json buffer=64k flush=1s;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 0;
  {temp}
  upstream bench {{
    server 127.0.0.1:{upstream_port};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Correlation-ID $request_id;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      add_header X-Correlation-ID $request_id;
      proxy_request_buffering off;
      proxy_buffers 8 64k;
      proxy_busy_buffers_size 128k;
      client_body_buffer_size 128k;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"""

_UPSTREAM = """
{user}daemon off;
worker_processes 1;
pid {work}/nginx.pid;
error_log {work}/nginx-error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  sendfile on;
  {temp}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{item}'; }}
    location /big {{ root {work}; }}
  }}
}}
"""


def find() -> Path | None:
    """The program; Debian puts it where only root's PATH looks."""
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def peer() -> Peer:
    """The program nginx as a reverse proxy with one worker."""
    program = find()
    if program is None:
        return Peer("nginx", "", "nginx is not installed (Debian package nginx)", _prepare)
    told = subprocess.run([program, "-v"], check=True, capture_output=True, timeout=10)
    return Peer("nginx", told.stderr.decode().rpartition("/")[2].split()[0], "", _prepare)


def upstream_command(port: int, work: Path) -> Command:
    """A server that answers every path with 1 KB of JSON, and /big/* with files of `work`/big."""
    config = work / "upstream.conf"
    work.mkdir(parents=True, exist_ok=True)
    config.write_text(
        _UPSTREAM.format(port=port, work=work, item=item(), user=_user(), temp=_temp(work))
    )
    return Command(_argv(config, work))


def item() -> str:
    """A JSON document of exactly 1 KB."""
    record = {"id": "1001", "status": "open", "total": 42.5, "note": ""}
    padding = ITEM_BYTES - len(json.dumps(record))
    return json.dumps(record | {"note": "x" * padding})


def _prepare(job: Job) -> Command:
    config = job.work / "nginx.conf"
    config.write_text(
        _PROXY.format(
            port=job.port,
            upstream_port=job.upstream_port,
            work=job.work,
            access_log=job.access_log,
            user=_user(),
            temp=_temp(job.work),
        )
    )
    return Command(_argv(config, job.work))


def _argv(config: Path, work: Path) -> list[str | Path]:
    # -e: else the built-in error log is opened before the configuration is read.
    return [find() or "nginx", "-p", work, "-c", config, "-e", work / "nginx-error.log"]


def _user() -> str:
    """Started by root it would give its worker to an account that can't read our folders."""
    return "user root;\n" if os.geteuid() == 0 else ""


def _temp(work: Path) -> str:
    """Every temporary folder inside ours: the built-in ones belong to the system."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {work}/{kind};" for kind in kinds)
