"""How long a start takes that finds the demo finished, beside the same at another commit.

    python -m benchmarks.finished_start [--base 96e46b1] [--pairs 7]

Each side makes every output of the demo as an empty file, with run records as its jobs write them (`benchmarks.dag` of that commit), and
then looks what is to be done; both in turn.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.dag import Call, snakemake

ROOT = Path(__file__).resolve().parents[1]
MAKE = """
import inspect, sys
from pathlib import Path
from benchmarks import dag
from medbench import config
clone = Path(sys.argv[1])
dag.make_clone(clone)
loaded = config.from_files([clone / "config/config.yaml"], clone)
todo = dag.jobs(dag.snakemake(clone).output)
dag.finish(clone, todo, (), loaded if "loaded" in inspect.signature(dag.finish).parameters else True)
"""  # an older `finish` is asked for records by True


def make(sources: Path, clone: Path) -> None:
    """The finished demo of these sources."""
    subprocess.run([sys.executable, "-c", MAKE, str(clone)], cwd=sources, check=True, env={**os.environ, "PYTHONPATH": str(sources)})


def look(clone: Path) -> Call:
    """One start. Ends this program where it finds something to do."""
    call = snakemake(clone)
    if "Nothing to be done" not in call.output:
        sys.exit(f"{clone}: something is to be done:\n{call.output[-2000:]}")
    return call


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="96e46b1")
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base, before, now = (Path(name, one) for one in ("base", "before", "now"))
        base.mkdir()
        archive = subprocess.run(["git", "archive", args.base], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x"], cwd=base, input=archive, check=True)
        make(base, before)
        make(ROOT, now)
        pairs = [(look(before), look(now)) for _ in range(args.pairs)]
    for side, calls in zip((args.base, "now"), zip(*pairs, strict=True), strict=True):
        print(f"{side}: {min(calls, key=lambda call: call.busy)}")
    busy = median(new.busy / old.busy for old, new in pairs)
    print(f"start of the finished demo: {busy:.2f} of {args.base} in seconds of a core, median of {args.pairs} pairs        [<= 1.2]")


if __name__ == "__main__":
    main()
