"""What `plan` predicts against what the run then takes: a fresh clone, a probe, the run, the two beside each other.

    python -m benchmarks.plan [--configfile config/nano.yaml] [--folder DIR] [--every SECONDS]

Only committed files count. The measured time of a stage is the sum over its run records, as the plan's is over its jobs; the total is wall
time of the command. Aims: the total within 1.5x, stages above 5% of the total within 2x. An estimate holds as long as the load does: so the
machine is probed during the run, too, and a second column says what `plan` had predicted with the mean of these probes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from benchmarks.first_run import clone
from medbench.command import read_config
from medbench.planning import probe
from medbench.planning.effort import Effort, Estimator, run_records
from medbench.schedule import jobs

TOTAL, STAGE, SHARE = 1.5, 2.0, 0.05


def main() -> None:
    """Prints a table, and says whether the aims are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", default="config/config.yaml", help="a quicker look: config/nano.yaml")
    parser.add_argument("--folder", type=Path, help="a new folder for the clone, which then stays")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between probes during the run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medbench-plan-") as place:
        folder = args.folder or Path(place, "clone")
        clone("HEAD", folder)
        os.chdir(folder)
        cores = len(os.sched_getaffinity(0))
        config = read_config(argparse.Namespace(configfile=[Path(args.configfile)]))
        todo, before = jobs(config), probe.measure(cores)
        if before is None:
            sys.exit("this machine is so busy that the probe measured nothing")
        estimator = Estimator(config, before, 0)  # it knows no record: nothing has run here
        predicted = [estimator.of(job.stage, job.names) for job in todo]
        total = estimator.total(predicted, cores).seconds
        during, over = list[probe.Speed](), threading.Event()
        watcher = threading.Thread(target=lambda: during.extend(_probed(cores, args.every, over)))
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
        command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "--configfile", args.configfile]
        begun, load = time.monotonic(), os.getloadavg()[0]
        watcher.start()
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        took = time.monotonic() - begun
        over.set()
        watcher.join()
        if done.returncode:
            sys.exit(f"{folder}: the run failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        print(f"{args.configfile}, {cores} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after the run, {len(todo)} jobs\n")
        estimator.speed = _mean([before, *during])
        again = [estimator.of(job.stage, job.names) for job in todo]
        report((predicted, again), (total, estimator.total(again, cores).seconds), took)
        print(f"\nprobe before: {_said(before)}\nmean of {1 + len(during)} probes: {_said(estimator.speed)}")


def _probed(cores: int, every: float, over: threading.Event) -> list[probe.Speed]:
    found = []
    while not over.wait(every):
        if (speed := probe.look(cores, probe.LONGEST)) is not None:
            found.append(speed)
    return found


def _mean(speeds: list[probe.Speed]) -> probe.Speed:
    found = {name: statistics.mean(getattr(one, name) for one in speeds) for name in ("start", "torch", "image")}
    flops = statistics.harmonic_mean([one.flops for one in speeds])
    return speeds[0]._replace(**found, flops=flops)


def _said(speed: probe.Speed) -> str:
    return f"start {speed.start:.2f} s, torch {speed.torch:.2f} s, image {1e3 * speed.image:.2f} ms, {speed.flops / 1e9:.0f} GFLOP/s"


def report(predicted: tuple[list[Effort], list[Effort]], totals: tuple[float, float], took: float) -> None:
    """The table in Markdown: both predictions [s] and their ratios to what was measured."""
    measured: Counter[str] = Counter()
    for one in run_records():
        measured[one.stage] += one.seconds  # type: ignore[assignment]
    whole = sum(measured.values())
    print(
        "| stage | measured [s] | share | predicted before [s] | ratio | by the mean of probes [s] | ratio |\n|---|---|---|---|---|---|---|"
    )
    missed: tuple[list[str], list[str]] = ([], [])
    for stage, seconds in measured.items():
        found = [sum(one.seconds or 0 for one in efforts if one.stage == stage) for efforts in predicted]
        for ratio, names in zip((each / seconds for each in found), missed, strict=True):
            names += [stage] if seconds > SHARE * whole and not 1 / STAGE <= ratio <= STAGE else []
        print(
            f"| {stage} | {seconds:.0f} | {seconds / whole:.0%} | "
            + " | ".join(f"{each:.0f} | {each / seconds:.2f}" for each in found)
            + " |"
        )
    for total, names in zip(totals, missed, strict=True):
        names += ["total"] if not 1 / TOTAL <= total / took <= TOTAL else []
    print(f"| total, wall time | {took:.0f} | | " + " | ".join(f"{total:.0f} | {total / took:.2f}" for total in totals) + " |")
    for when, names in zip(("before", "by the mean of probes"), missed, strict=True):
        print(f"\naims {when}: {f'missed: {names}' if names else 'met'}", end="")
    print()


if __name__ == "__main__":
    main()
