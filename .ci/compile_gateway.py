"""Compiles the modules that a request goes through, with mypyc, into gateway/_compiled.

    python .ci/compile_gateway.py [--into FOLDER] [--work FOLDER] [--required]

The sources stay the only implementation: `gateway/compiled.py` uses what this makes only while it
was made from the very same sources. Without a C compiler, Python's headers or mypy nothing is made,
one line says so, and that is no failure unless `--required` is given.

The C compiler is called here and not by setuptools: two at a time, and only for the C files that
changed, so that a change to one module costs a quarter of a minute.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "gateway"
GROUP = "lockgate"
LIBRARY = "lockgate__mypyc"  # mypyc's name for the library of that group
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
# What a request goes through. Modules with pydantic models can't be compiled, and those that are
# only used when something is built or has failed need not be.
MODULES = (
    "app", "batch", "delivery.ids", "delivery.intake", "delivery.journal", "delivery.queue",
    "forwarded", "http1.chunked", "http1.head", "http1.lines", "http1.target", "message",
    "observability.access_log", "observability.correlation", "observability.metrics",
    "observability.observer", "observability.trace", "policies.bulkhead.machine",
    "policies.bulkhead.policy", "policies.cache.entry", "policies.cache.hits", "policies.cache.key",
    "policies.cache.lookup", "policies.cache.memory", "policies.cache.policy",
    "policies.circuit_breaker.machine", "policies.circuit_breaker.policy", "policies.compile",
    "policies.delivery.policy", "policies.hedge.policy", "policies.hedge.quantile",
    "policies.hedge.race", "policies.mirror.decide", "policies.mirror.policy",
    "policies.rate_limit.decide", "policies.rate_limit.fields", "policies.rate_limit.keys",
    "policies.rate_limit.plan", "policies.rate_limit.policy", "policies.retry.policy",
    "policies.retry.replay", "policies.terminal", "routing.host", "routing.path", "routing.table",
    "routing.template", "routing.tree", "server.answer", "server.attendant", "server.body",
    "server.connection", "server.cycle", "server.factory", "server.protocol", "store.command",
    "store.link", "upstream.balancer", "upstream.body", "upstream.budget", "upstream.chooser",
    "upstream.client", "upstream.connection", "upstream.deadline", "upstream.headers",
    "upstream.link", "upstream.outliers", "upstream.pool", "upstream.reading", "upstream.ring",
    "upstream.slow_start", "upstream.stall", "upstream.target", "upstream.upload",
)  # fmt: skip


class CannotCompileError(Exception):
    """What is missing, as a phrase."""


def source_of(module: str) -> str:
    """The path of a module's source within the package."""
    return module.replace(".", "/") + ".py"


def check_tools() -> list[str]:
    """The C compiler's command. Raises CannotCompileError if something is missing."""
    if importlib.util.find_spec("mypyc") is None or importlib.util.find_spec("setuptools") is None:
        raise CannotCompileError("mypyc is not installed")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise CannotCompileError("Python's headers are not installed (Debian: python3-dev)")
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(command[0]) is None:
        command = ["cc", *command[1:]]
    if shutil.which(command[0]) is None:
        raise CannotCompileError("there is no C compiler")
    return command


def to_c(work: Path) -> list[Any]:
    """Have mypyc write the C sources; the extensions they make, as setuptools describes them."""
    import setuptools  # noqa: F401  mypyc takes Extension from where it finds it
    from mypyc.build import mypycify

    said = io.StringIO()
    paths = [f"{PACKAGE}/{source_of(module)}" for module in MODULES]
    try:
        with contextlib.chdir(ROOT), contextlib.redirect_stdout(said):
            return list(mypycify(paths, multi_file=True, group_name=GROUP, target_dir=str(work)))
    except SystemExit:
        raise CannotCompileError(f"mypyc refused the sources:\n{said.getvalue()}") from None


def flags() -> list[str]:
    """For the compiler: what the interpreter was built with, less what is for finding errors."""
    given = shlex.split(sysconfig.get_config_var("CFLAGS") or "")
    kept = [flag for flag in given if not flag.startswith(("-W", "-g", "-O", "-fstack"))]
    return [*kept, "-fPIC", "-O2", "-g0", "-w", "-DNDEBUG"]


def compile_one(compiler: list[str], source: Path, includes: list[str], work: Path) -> Path:
    """One object file, made anew only if what the preprocessor makes of the source has changed."""
    command = [*compiler, *flags(), *[f"-I{folder}" for folder in includes]]
    text = subprocess.run([*command, "-E", "-P", source], check=True, capture_output=True).stdout
    name = hashlib.sha256(" ".join(command).encode() + b"\0" + text).hexdigest()[:24]
    made = work / "objects" / f"{source.stem}-{name}.o"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        for old in made.parent.glob(f"{source.stem}-{'[0-9a-f]' * 24}.o"):
            old.unlink()
        part = made.with_suffix(".part")
        subprocess.run([*command, "-c", source, "-o", part], check=True)
        part.rename(made)
    return made


def link(compiler: list[str], objects: list[Path], into: Path) -> None:
    """One shared library of the objects."""
    extra = shlex.split(sysconfig.get_config_var("LDSHARED") or "")[1:] or ["-shared"]
    subprocess.run([*compiler, *extra, *objects, "-o", into], check=True)


def imported(sources: list[str], package: Path) -> list[str]:
    """Those sources and the package's modules that they import, whose constants mypyc inlines."""
    found = set(sources)
    for source in sources:
        for node in ast.walk(ast.parse((package / source).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE + "."):
                module = str(node.module).removeprefix(PACKAGE + ".")
                names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
                found |= {source_of(name) for name in names}
    return sorted(name for name in found if (package / name).is_file())


def build(into: Path, work: Path) -> None:
    """Compile into the folder `into`. Raises CannotCompileError."""
    compiler = check_tools()
    work.mkdir(parents=True, exist_ok=True)
    # Before they are read: who edits one meanwhile has something that is out of date.
    manifest = describe()
    extensions = to_c(work)
    jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    fresh = into.with_name(into.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    headers = [sysconfig.get_path("include"), sysconfig.get_path("platinclude")]
    try:
        with ThreadPoolExecutor(jobs) as pool:
            for extension in extensions:
                includes = [*dict.fromkeys([*extension.include_dirs, *headers])]
                sources = [ROOT / source for source in extension.sources]
                objects = list(
                    pool.map(lambda one: compile_one(compiler, one, includes, work), sources)  # noqa: B023
                )
                link(compiler, objects, fresh / (extension.name + SUFFIX))
    except subprocess.CalledProcessError as error:
        raise CannotCompileError(f"the C compiler failed: {error}") from None
    manifest["modules"] = [extension.name for extension in extensions]
    (fresh / guard().MANIFEST).write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(into, ignore_errors=True)
    fresh.rename(into)


def describe() -> dict[str, Any]:
    """The manifest: from what it is compiled, and for which interpreter."""
    sources = imported([source_of(module) for module in MODULES], ROOT / PACKAGE)
    return {
        "suffix": SUFFIX,
        "sources": sources,
        "digest": guard().digest(sources, ROOT / PACKAGE),
        "compiler": own_digest(),
    }


def guard() -> Any:
    """The module that decides whether what was compiled may be used."""
    sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"{PACKAGE}.compiled")


def own_digest() -> str:
    """Tells what this script makes from what another version of it would make."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def why_not(folder: Path) -> str:
    """Why what is in `folder` can't be used, or the empty string."""
    try:
        manifest = json.loads((folder / guard().MANIFEST).read_bytes())
    except (OSError, ValueError):
        return "nothing is compiled"
    if manifest.get("compiler") != own_digest():
        return "it was compiled in another way"
    return str(guard().refusal(manifest))


def main() -> int:
    """0, also if it could not be compiled and need not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / PACKAGE / "_compiled")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mypyc")
    parser.add_argument("--required", action="store_true", help="fail if it can't be compiled")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args()
    reason = why_not(options.into)
    if options.check or not reason:
        print(f"The compiled modules are not used: {reason}" if reason else "Compiled already")
        return 1 if reason else 0
    try:
        build(options.into, options.work)
    except CannotCompileError as error:
        shutil.rmtree(options.into, ignore_errors=True)
        print(f"Lockgate runs as pure Python, at about twice the CPU: {error}")
        return 1 if options.required else 0
    print(f"Compiled {len(MODULES)} modules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
