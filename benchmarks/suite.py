"""What CI takes, against an earlier commit: `.ci/run` of both in clones with the environment of their own lock.

    python -m benchmarks.suite [--against 95cb2d0] [--only HEAD]

Both run at once, so that other load meets both; an hour and a half on two cores. CPU seconds are those of all processes, orphans and
forks included, by `perf stat` (Debian: linux-perf); the clones stand beside a link to the folder of real data, as CI has it. Only
committed files count. Failed tests are printed, and count.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from benchmarks.first_run import ROOT


class Took(NamedTuple):
    """Seconds, and pytest's last lines."""

    cpu: float
    wall: float
    said: str


def clone(commit: str, folder: Path) -> Path:
    """A repository of one commit, since tests look at it; `make` brings its environment, which does not count."""
    folder.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), "main"], cwd=folder, check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=folder / "main", check=True)
    subprocess.run(["make", "--silent", ".venv/.ready"], cwd=folder / "main", check=True, stdout=sys.stderr)
    return folder / "main"


def run(folder: Path) -> Took:
    """One run of CI."""
    counted, log, begun = folder.parent / "cpu.csv", folder.parent / "ci.log", time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")}
    environment["MAKEFLAGS"] = "i"  # a failed test hides no later ones
    environment.setdefault("MEDBENCH_REAL_DATA", str(ROOT.parent / "shared" / "data"))
    with log.open("w") as said:
        perf = ["perf", "stat", "-x,", "-o", str(counted), "-e", "task-clock", "bash", ".ci/run"]
        code = subprocess.run(perf, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT, check=False).returncode
    if code:  # by no failed test: these are ignored
        raise SystemExit(f"{folder}: .ci/run was stopped ({code}); the seconds of a part are no figure")
    milliseconds = next(float(line.split(",")[0]) for line in counted.read_text().splitlines() if "task-clock" in line)
    ends = re.findall(r"(?m)^=* ?(\d+ (?:passed|failed).*?) ?=*$", log.read_text(errors="replace"))
    return Took(milliseconds / 1000, time.monotonic() - begun, "; ".join(ends))


def main() -> None:
    """Print a line a side, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="95cb2d0", help="an earlier commit")
    parser.add_argument("--only", help="HEAD or that commit: one side")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as both:
        places = {commit: clone(commit, Path(name, commit)) for commit in ([args.only] if args.only else ["HEAD", args.against])}
        runs = {both.submit(run, place): commit for commit, place in places.items()}
        took = dict[str, Took]()
        for done in as_completed(runs):
            took[runs[done]] = one = done.result()
            print(f"{runs[done]}: CPU {one.cpu:.0f} s, wall {one.wall:.0f} s: {one.said}", flush=True)
    if len(took) == 2:
        print(f"cpu: {took['HEAD'].cpu / took[args.against].cpu:.2f} of {args.against} [0.5]")


if __name__ == "__main__":
    main()
