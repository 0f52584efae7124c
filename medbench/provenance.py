"""What a result came from: digests of code and parameters, run records, library versions.

The digest of a stage's code is taken over `ast.unparse` without docstrings, for every medbench module that the stage's
module imports, directly or not. So a comment or a docstring reruns nothing, and an edit reruns exactly what uses it.
Libraries are not in it: their versions are recorded in each run record, and what was made with others than the installed
ones is *stale*: it is said, and rerun where the configuration says `rerun_on_versions: true`.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from medbench import paths, runtime, warm

PACKAGE = Path(__file__).parent
# What these modules decide reaches a job only through its params, which are tracked by value.
# checkpoint, digests, hubs: the params say by commit or digest which weights are read. errors: the wording of a message is no result;
# devices, partial, progress, fitting, lazy: neither is where and how far a job is, nor in what pieces a batch goes through a device,
# nor when a library is imported.
UNTRACKED = frozenset(
    f"medbench{name}"
    for name in (
        "", ".__main__", ".cells", ".cli", ".config", ".console", ".devices", ".digests", ".errors", ".exclusive", ".hubs",
        ".models.checkpoint", ".models.fitting", ".models.lazy", ".partial", ".progress", ".provenance", ".runtime", ".sources", ".stages",
        ".warm",
    )
)  # fmt: skip
# Import name -> the distributions whose versions can change what is computed through it.
LIBRARIES = {
    **{name: (name,) for name in ("accelerate", "altair", "numpy", "polars", "pyarrow", "safetensors", "scipy", "tokenizers", "torch")},
    "PIL": ("pillow",),
    "bitsandbytes": ("bitsandbytes",),
    "open_clip": ("open-clip-torch", "timm"),
    "peft": ("peft", "accelerate"),
    "rouge_score": ("rouge-score",),
    "sklearn": ("scikit-learn", "scipy"),
    "snakemake": ("snakemake",),
    "torchvision": ("torchvision",),
    "transformers": ("transformers", "tokenizers", "torchvision"),
    "vl_convert": ("vl-convert-python",),
}


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
    return digest("".join(f"{name}\n{_parsed(name).code}\n" for name in closure(modules)))


@cache
def closure(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted names of the medbench modules that `modules` import, at any depth and inside functions too, themselves included."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in UNTRACKED and not _is_planned(name):
            found.add(name)
            waiting += [imported for imported in _parsed(name).own if _source(imported) is not None]
    return tuple(sorted(found))


def _is_planned(module: str) -> bool:
    """Whether it is an architecture that has no file yet: its jobs fail, and run when it has one."""
    return module.startswith("medbench.models.") and _source(module) is None


@cache
def _source(module: str) -> Path | None:
    """File of a medbench module, or None for a name that is no module (an imported function, say)."""
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


class _Parsed(NamedTuple):
    """A module's code without comments and docstrings, the names of medbench that it imports, inside functions too, and what else."""

    code: str
    own: list[str]  # modules, and what is imported from them
    outside: list[str]  # top-level names


@cache
def _parsed(module: str) -> _Parsed:
    """Parsing takes 10 ms a module, so what came of it is kept where Python keeps its own, as long as source and Python are the same."""
    path = _source(module)
    if path is None:
        raise ModuleNotFoundError(module)
    source = path.read_bytes()
    note = Path(importlib.util.cache_from_source(str(path))).with_suffix(".code.json")
    stamp = hashlib.sha256(sys.version.encode() + source).hexdigest()
    try:
        known = json.loads(note.read_bytes())
        if known["stamp"] == stamp:
            return _Parsed(**known["parsed"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    parsed = _parse(source)
    try:
        with runtime.whole(note) as aside:
            aside.write_text(json.dumps({"stamp": stamp, "parsed": parsed._asdict()}), encoding="utf-8")
    except OSError:  # a folder that cannot be written costs time, nothing else
        pass
    return parsed


def _parse(source: bytes) -> _Parsed:
    tree, names, packages = ast.parse(source), set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            packages.add(node.module.split(".")[0])
    own = sorted(name for name in names if name.split(".")[0] == "medbench")
    return _Parsed(ast.unparse(tree), own, sorted(packages))


def has_code(module: str) -> bool:
    """False for a package whose `__init__` only carries a docstring."""
    return bool(_parsed(module).code.strip().removesuffix("pass"))


@cache
def libraries(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted distributions of `LIBRARIES` that the closure of `modules` imports."""
    outside = {name for module in closure(modules) for name in _parsed(module).outside}
    return tuple(sorted({library for name in outside for library in LIBRARIES.get(name, ())}))


@cache
def versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a number, and Python's own."""
    found = {"python": platform.python_version()}
    for name in sorted({library for libraries in LIBRARIES.values() for library in libraries}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Made(NamedTuple):
    """Versions of the libraries that a job uses: those that made its result, by its run record, and those installed now."""

    then: dict[str, str]
    now: dict[str, str]


def made(record: Path, modules: tuple[str, ...]) -> Made:
    """Where there is no readable record, the result, if any, counts as made with what is installed."""
    installed = versions()
    now = {name: installed[name] for name in libraries(modules) if name in installed}
    try:
        recorded = json.loads(record.read_bytes())["versions"]
    except (OSError, ValueError, KeyError):
        return Made(now, now)
    return Made({name: recorded.get(name, "none") for name in now}, now)


def recorded_weights(output: Path) -> dict[str, str]:
    """Commit or digest of the weights that a table was made with, by the run record beside it; empty where there is none."""
    try:
        found = json.loads(paths.run_record(output).read_bytes())["weights"]
    except (OSError, ValueError, KeyError):
        return {}
    return dict(found)


def process_start() -> float:
    """When this job's process started [s since the epoch], so that what Python needs to start, or waited for to be warm, counts.

    On Linux by the clock since boot: psutil takes the boot time in whole seconds, and is off by as much.
    """
    if (handed_over := warm.began()) is not None:
        return handed_over
    if sys.platform != "linux":
        import psutil

        return psutil.Process().create_time()
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22, proc(5)
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


def write_run_record(
    path: Path, stage: str, names: tuple[str, ...], used: tuple[str, ...], tracked_params: str, started: float, facts: dict[str, Any]
) -> None:
    """Times, host and versions of a finished job, beside its first output; `seconds` is wall time, memory in MB.

    `used`: the libraries that its code imports. `facts`: what the job itself adds (device, number of images, parameters trained, ...).
    """
    record = {
        "stage": stage,
        "names": list(names),
        "command": f"python -m medbench {stage} {' '.join(names)}",
        "params": json.loads(tracked_params),
        "versions": versions(),
        "libraries": list(used),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "peak_rss_mb": round(_peak_rss_mb()),
        "host": socket.gethostname(),
        "torch": "torch" in sys.modules,
        "forked": warm.began() is not None,  # of a process that had torch in its memory
        "modules": sorted(name for name in sys.modules if name.split(".")[0] == "medbench"),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **facts,
    }
    with runtime.whole(path) as aside:
        aside.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _peak_rss_mb() -> float:
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(psutil.Process().memory_info().rss / 2**20)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
