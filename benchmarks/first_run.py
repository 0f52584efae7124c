"""The first run of a user, without the installation: `make run` in a fresh clone, against an earlier commit, in turns.

    python -m benchmarks.first_run [--against 95cb2d0] [--rounds 2] [--configfile config/nano.yaml]

Each round runs both commits, the other one first every second time. Each run has a clone of its own, whose `.venv` is the one that
runs this. Printed per run: CPU seconds of Snakemake and all that it starts, wall seconds, lines on the terminal, and the longest
time without a line; at the end the ratios of the medians. Only committed files count.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.starts import bring_dropped, surroundings

ROOT = Path(__file__).resolve().parents[1]


class Took(NamedTuple):
    """What a run took: seconds, lines, and the longest silence [s]."""

    cpu: float
    wall: float
    lines: int
    silence: float


def clone(commit: str, folder: Path) -> None:
    """The files of a commit, with the virtual environment of this one."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    (folder / ".venv").symlink_to(sys.prefix)
    bring_dropped(folder)


def run(folder: Path, configfile: str) -> Took:
    """One run as `make run` does it. What it says goes to `first_run.txt` in its folder."""
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "--configfile", configfile]
    begun = heard = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    silence, lines = 0.0, 0
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=surroundings(folder))
    watched = psutil.Process(process.pid)
    forked = Forked()
    assert process.stdout
    with (folder / "first_run.txt").open("wb") as copy:
        os.set_blocking(process.stdout.fileno(), False)
        while True:
            forked.look(watched)
            time.sleep(0.2)
            read = process.stdout.read()
            now = time.monotonic()
            if read:
                silence, heard = max(silence, now - heard), now
                lines += read.count(b"\n")
                copy.write(read)
            elif read == b"" or (process.poll() is not None and read is None):
                break
    code, now = process.wait(), time.monotonic()
    if code:
        sys.exit(f"{folder}: the run failed; see first_run.txt")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(own + forked.seconds(), now - begun, lines, max(silence, now - heard))


class Forked:
    """CPU time of the warm process and its forks, which nobody waits for: by what was last seen of each."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, float], float] = {}

    def look(self, parent: psutil.Process) -> None:
        """Called several times a second."""
        try:
            found = [child for child in parent.children() if "warm" in child.cmdline()]
            for process in [*found, *(fork for child in found for fork in child.children(recursive=True))]:
                used = process.cpu_times()
                self.seen[process.pid, process.create_time()] = used.user + used.system
        except psutil.Error:  # one ended meanwhile
            return

    def seconds(self) -> float:
        """Of all that were seen."""
        return sum(self.seen.values())


def main() -> None:
    """Run both in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", default="95cb2d0", help="an earlier commit")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--configfile", default="config/config.yaml", help="a quicker look: config/nano.yaml")
    args = parser.parse_args()
    took: dict[str, list[Took]] = {"HEAD": [], args.against: []}
    print("| round | commit | CPU [s] | wall [s] | lines | longest silence [s] |\n|---|---|---|---|---|---|", flush=True)
    for number in range(args.rounds):
        for commit in list(took)[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name, "clone")
                clone(commit, folder)
                found = run(folder, args.configfile)
            took[commit].append(found)
            print(f"| {number + 1} | {commit} | {found.cpu:.0f} | {found.wall:.0f} | {found.lines} | {found.silence:.0f} |", flush=True)
    for name in ("cpu", "wall"):
        new, old = (statistics.median(getattr(one, name) for one in took[commit]) for commit in ("HEAD", args.against))
        print(f"{name}: {new / old:.2f} of {args.against}")


if __name__ == "__main__":
    main()
