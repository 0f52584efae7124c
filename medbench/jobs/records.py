"""What a result came from, beside it: command, parameters, inputs, libraries, weights, host, time and memory of the job that wrote it.

Libraries are not in a rerun key: their versions are recorded in each run record, and what was made with others than the installed ones is
*stale*: it is said, and rerun where the configuration says `rerun_on_versions: true`.
"""

import contextlib
import json
import os
import platform
import re
import socket
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from medbench import paths
from medbench.jobs import files, integrity, rerun, warm

TRACKED = False  # what is said of a result is no part of it


@cache
def versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a number, and Python's own."""
    found = {"python": platform.python_version()}
    places = _metadata()
    for name in sorted({library for libraries in rerun.LIBRARIES.values() for library in libraries}):
        if version := _version(name, places):
            found[name] = version
    return found


def _version(name: str, places: Mapping[str, Path]) -> str | None:
    """As `importlib.metadata` has it, whose parser of mail takes a tenth of a short job for it: asked where no file tells it."""
    try:
        with places[_plain(name)].open(encoding="utf-8") as lines:
            return next(line.removeprefix("Version:").strip() for line in lines if line.startswith("Version:"))
    except (KeyError, OSError, StopIteration):
        from importlib import metadata

        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None


def _metadata() -> dict[str, Path]:
    """Installed distribution -> the file that tells its version, where it is installed as wheels are."""
    found: dict[str, Path] = {}
    for place in sys.path:
        with contextlib.suppress(OSError):  # a zip, or nothing
            for name in os.listdir(place or "."):
                if name.endswith(".dist-info"):
                    found.setdefault(_plain(name.partition("-")[0]), Path(place, name, "METADATA"))
    return found


def _plain(name: str) -> str:
    """As `packaging.utils.canonicalize_name`, whose import takes a fifth of a short job."""
    return re.sub("[-_.]+", "-", name).lower()


class Made(NamedTuple):
    """Versions of the libraries that a job uses: those that made its result, by its run record, and those installed now."""

    then: dict[str, str]
    now: dict[str, str]


def made(record: Mapping[str, Any] | None, modules: tuple[str, ...]) -> Made:
    """Where there is no run record, the result, if any, counts as made with what is installed."""
    installed = versions()
    now = {name: installed[name] for name in rerun.libraries(modules) if name in installed}
    recorded = (record or {}).get("versions")
    return Made({name: recorded.get(name, "none") for name in now} if isinstance(recorded, dict) else now, now)


def recorded_weights(output: Path) -> dict[str, str]:
    """Commit or digest of the weights that a table was made with, by the run record beside it; empty where there is none."""
    return dict((integrity.read(paths.run_record(output)) or {}).get("weights", {}))


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
    stage: str,
    names: tuple[str, ...],
    outputs: list[Path],
    inputs: list[Path],
    used: tuple[str, ...],
    tracked_params: str,
    started: float,
    facts: dict[str, Any],
) -> None:
    """Times, host, versions and digests of a finished job, beside its first output; `seconds` is wall time, memory in MB.

    `used`: the libraries that its code imports. `facts`: what the job itself adds (device, number of images, parameters trained, ...).
    """
    record = {
        "stage": stage,
        "names": list(names),
        "command": f"python -m medbench {stage} {' '.join(names)}",
        "params": json.loads(tracked_params),
        "outputs": integrity.of_outputs(outputs, facts.pop(integrity.COMPUTED, None)),
        "inputs": integrity.of_inputs(inputs),
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
    with files.atomic(paths.run_record(outputs[0])) as aside:
        aside.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _peak_rss_mb() -> float:
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(psutil.Process().memory_info().rss / 2**20)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
