"""What a result came from: digests of code and parameters, run records, library versions.

The digest of a stage's code is taken over `ast.unparse` without docstrings, for every medbench module that the stage's
module imports, directly or not. So a comment or a docstring reruns nothing, and an edit reruns exactly what uses it.
Libraries are not in it: their versions are recorded in each run record and show as *stale* when they change.
"""

import ast
import hashlib
import importlib.metadata
import json
import platform
import socket
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from medbench import runtime

PACKAGE = Path(__file__).parent
# What these modules decide reaches a job only through its params, which are tracked by value.
# errors: the wording of a message is no result; devices, partial, progress: neither is where and how far a job is.
UNTRACKED = frozenset(
    f"medbench{name}"
    for name in (
        "", ".__main__", ".cells", ".cli", ".config", ".devices", ".errors", ".exclusive", ".partial", ".progress", ".provenance",
        ".runtime", ".stages",
    )
)  # fmt: skip
LIBRARIES = (
    "numpy", "scipy", "scikit-learn", "polars", "pyarrow", "pillow", "torch", "torchvision", "transformers", "tokenizers",
    "peft", "accelerate", "safetensors", "rouge-score", "altair", "vl-convert-python", "snakemake",
)  # fmt: skip


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NamedTuples become lists, so name them in the caller."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(text: str | bytes) -> str:
    """SHA-256, the first 16 hexadecimal digits."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tracked(params: Any, modules: tuple[str, ...]) -> str:
    """What the rule records for one job: its parameters by name and the digest of the code that makes it."""
    return canonical({"params": params._asdict(), "code": code_digest(modules)})


@cache
def code_digest(modules: tuple[str, ...]) -> str:
    """Digest over the static import closure of some modules of medbench."""
    return digest("".join(f"{name}\n{_normalised(name)}\n" for name in closure(modules)))


@cache
def closure(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted names of the medbench modules that `modules` import, at any depth and inside functions too, themselves included."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in UNTRACKED:
            found.add(name)
            waiting += _imports(name)
    return tuple(sorted(found))


def _source(module: str) -> Path | None:
    """File of a medbench module, or None for a name that is no module (an imported function, say)."""
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _tree(module: str) -> ast.Module:
    path = _source(module)
    if path is None:
        raise ModuleNotFoundError(module)
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> tuple[str, ...]:
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return tuple(name for name in names if name.split(".")[0] == "medbench" and _source(name) is not None)


@cache
def _normalised(module: str) -> str:
    """The module's code without docstrings and comments, and without imports that only types need."""
    tree = ast.parse(ast.unparse(_tree(module)))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def has_code(module: str) -> bool:
    """False for a package whose `__init__` only carries a docstring."""
    return bool(_normalised(module).strip().removesuffix("pass"))


def versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a number, and Python's own."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_run_record(path: Path, stage: str, names: tuple[str, ...], tracked_params: str, started: float, facts: dict[str, Any]) -> None:
    """Times, host and versions of a finished job, beside its first output; `seconds` is wall time, memory in MB.

    `facts`: what the job itself adds (device, number of images, parameters trained, ...).
    """
    usage = psutil.Process().memory_info()
    record = {
        "stage": stage,
        "names": list(names),
        "command": f"python -m medbench {stage} {' '.join(names)}",
        "params": json.loads(tracked_params),
        "versions": versions(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "peak_rss_mb": round(_peak_rss_mb(usage.rss)),
        "host": socket.gethostname(),
        "torch": "torch" in sys.modules,
        "modules": sorted(name for name in sys.modules if name.split(".")[0] == "medbench"),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **facts,
    }
    with runtime.whole(path) as aside:
        aside.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _peak_rss_mb(now: int) -> float:
    try:
        import resource
    except ImportError:  # Windows
        return now / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, now) / 2**20
