"""What `plan` predicts against what the run then takes: a fresh clone, `plan --json`, the run, the two beside each other.

    python -m benchmarks.plan [--configfile config/nano.yaml] [--folder DIR]

Only committed files count. The measured time of a stage is the sum over its run records, as the plan's is over its jobs; the total is wall
time of the command. Aims: the total within 1.5x, stages above 5% of the total within 2x.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.first_run import clone
from medbench.planning.effort import run_records

TOTAL, STAGE, SHARE = 1.5, 2.0, 0.05


def main() -> None:
    """Prints a table, and says whether the aims are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", default="config/config.yaml", help="a quicker look: config/nano.yaml")
    parser.add_argument("--folder", type=Path, help="a new folder for the clone, which then stays")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medbench-plan-") as place:
        folder = args.folder or Path(place, "clone")
        clone("HEAD", folder)
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
        command = [sys.executable, "-m", "medbench", "plan", args.configfile, "--json"]
        plan = json.loads(subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout)
        begun, load = time.monotonic(), os.getloadavg()
        command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "--configfile", args.configfile]
        done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        took = time.monotonic() - begun
        if done.returncode:
            sys.exit(f"{folder}: the run failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        again = json.loads(
            subprocess.run(
                [*command[:0], sys.executable, "-m", "medbench", "plan", args.configfile, "--json", "--no-probe"],
                cwd=folder, env=environment, check=True, capture_output=True, text=True,
            ).stdout
        )  # fmt: skip
        report(plan, measured(folder), took)
        print(f"\nload before and after the run: {load[0]:.1f}, {os.getloadavg()[0]:.1f}; after it {again['jobs']}")


def measured(folder: Path) -> Counter[str]:
    """Seconds of each stage by the run records."""
    found: Counter[str] = Counter()
    for one in run_records(folder / "results"):
        found[one.stage] += one.seconds  # type: ignore[assignment]
    return found


def report(plan: dict[str, Any], found: Counter[str], took: float) -> None:
    """The table in Markdown."""
    whole = sum(found.values())
    print("| stage | predicted [s] | measured [s] | ratio | share |\n|---|---|---|---|---|")
    missed = []
    for stage, one in plan["stages"].items():
        if not found[stage]:
            continue
        ratio, share = one["seconds"] / found[stage], found[stage] / whole
        missed += [stage] if share > SHARE and not 1 / STAGE <= ratio <= STAGE else []
        print(f"| {stage} | {one['seconds']:.0f} | {found[stage]:.0f} | {ratio:.2f} | {share:.0%} |")
    total = plan["time"]["seconds"] / took
    missed += ["total"] if not 1 / TOTAL <= total <= TOTAL else []
    print(f"| total, wall time | {plan['time']['seconds']:.0f} | {took:.0f} | {total:.2f} | |")
    print(f"\nprobe: {plan['time']['probe']}\naims {f'missed: {missed}' if missed else 'met'}")


if __name__ == "__main__":
    main()
