"""CPU and wall seconds of phases, kept in a file: a process that is measured may end without a word."""

import json
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple


class Took(NamedTuple):
    """Seconds."""

    cpu: float  # user and system, of all threads and of children that have ended
    wall: float

    def __sub__(self, other: "Took") -> "Took":
        return Took(self.cpu - other.cpu, self.wall - other.wall)

    def __add__(self, other: tuple[Any, ...]) -> "Took":
        return Took(self.cpu + other[0], self.wall + other[1])


def now() -> Took:
    """Since some moment in the past."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Took(sum(one.ru_utime + one.ru_stime for one in used), time.perf_counter())


class Clock:
    """Phases of this process; a phase that is measured again grows."""

    def __init__(self, file: Path) -> None:
        self._file, self._begun, self._phases = file, dict[str, Took](), dict[str, Took]()

    def start(self, phase: str) -> None:
        """Begin, or go on with, a phase."""
        self._begun[phase] = now()

    def stop(self, phase: str) -> None:
        """End it."""
        took = now() - self._begun.pop(phase)
        self._phases[phase] = self._phases.get(phase, Took(0, 0)) + took
        self._file.write_text(json.dumps(self._phases), encoding="utf-8")


class Ran(NamedTuple):
    """A process: its phases by name, `whole` among them."""

    phases: dict[str, Took]
    folder: Path  # what it wrote


def run(command: list[str], cwd: Path, folder: Path) -> Ran:
    """One process on one thread; `phases.json` of its folder has its phases. Ends this one, with its output, where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "1")
    root = str(Path(__file__).resolve().parents[2])
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": str(cwd / "hub")}
    environment = {**os.environ, **threads, **offline, "PYTHONPATH": root, "MEDBENCH_WARM": ""}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = now()
    done = subprocess.run(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    whole = now() - before
    (folder / "log").write_text(done.stdout, encoding="utf-8")
    if done.returncode or not (folder / "phases.json").is_file():
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-3000:]}")
    phases = {name: Took(*took) for name, took in json.loads((folder / "phases.json").read_text(encoding="utf-8")).items()}
    return Ran({**phases, "whole": whole}, folder)
