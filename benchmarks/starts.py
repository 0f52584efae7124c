"""CPU time of whole jobs on the nano grid, against another version of medbench: `python -m benchmarks.starts`.

Each side is a clone with a finished nano run of its own. Jobs without a model run as Snakemake called them, by the arguments in their run
record; model jobs run by hand, without the warm process. The sides alternate, and what is printed is the median of CPU seconds (user and
system, of all processes) of each side and the median ratio of the pairs. Bytecode is cached, as a user has it.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.campaign import COMMAND, ROOT, copy_sources
from medbench import paths, stages
from medbench.jobs import warm

COMMIT = "95cb2d0"
DATASET, QUESTIONS, MODEL, ANSWERER = "nano-radiology", "nano-vqa-radiology", "nano-clip", "nano-llava"
OLDER = {"duplicates": "twins", "overlap": "ledger"}  # what stages are called in `COMMIT`
DROPPED = ".dropped"  # libraries that `COMMIT` uses and this version does not


class Job(NamedTuple):
    """A job as the command line names it, and whether it loads a model."""

    stage: str
    names: tuple[str, ...]
    model: bool = False


JOBS = (
    Job("score", (DATASET, MODEL, "lora")),
    Job("interval", (DATASET, MODEL, "lora")),
    Job("duplicates", (DATASET,)),
    Job("gaps", ("nano",)),
    Job("overlap", ("nano",)),
    Job("prompts", (DATASET, MODEL), model=True),
    Job("embed", (DATASET, MODEL), model=True),
    Job("adapt", (DATASET, MODEL, "lora"), model=True),
    Job("predict", (DATASET, MODEL, "lora"), model=True),
    Job("predict", (QUESTIONS, ANSWERER, "ots"), model=True),
)


def surroundings(folder: Path) -> dict[str, str]:
    """Environment of a side's processes: bytecode is kept, and libraries that only the older version uses are found."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    return {**kept, "PYTHONPATH": str(folder / DROPPED)} if (folder / DROPPED).is_dir() else kept


def finished(folder: Path) -> Path:
    """The folder, after a nano run in it, with the one table of scores that is made on demand."""
    for targets in ([], [f"results/scores/{DATASET}/{MODEL}/lora.parquet"]):
        command = [COMMAND[0], *targets, *COMMAND[1:]]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=surroundings(folder))
    return folder


def checkout(folder: Path) -> Path:
    """The sources of `COMMIT`; a folder of its own, so that git keeps no account of it."""
    folder.mkdir(parents=True)
    packed = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=packed)
    bring_dropped(folder)
    return folder


def bring_dropped(folder: Path) -> None:
    """Install what an older version's lock names and this environment lacks into a folder of its own."""
    wanted = re.findall(r"^dataframely==\S+", (folder / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    if wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / DROPPED), *wanted]
        subprocess.run(pip, check=True)


def command(folder: Path, job: Job) -> list[str]:
    """What follows `python -m medbench`."""
    if job.model:
        return [job.stage, *job.names, "--configfile", "config/nano.yaml"]
    place = paths.run_record(stages.get(job.stage).outputs(*job.names)[0])
    older = Path(*(OLDER.get(part, part) for part in place.parts))
    record = json.loads((folder / (place if (folder / place).exists() else older)).read_text(encoding="utf-8"))
    return [str(word) for word in record["argv"][1:]]


def seconds(folder: Path, job: Job) -> float:
    """CPU seconds of the job and all that it starts."""
    resolved = max((folder / "results" / ".config").glob("*.json"), key=lambda file: file.stat().st_mtime)
    environment = {**surroundings(folder), **warm.THREADS, warm.VARIABLE: ""} | ({} if job.model else {"MEDBENCH_RESOLVED": str(resolved)})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "medbench", *command(folder, job)], cwd=folder, env=environment, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{job.stage} {'/'.join(job.names)} failed in {folder}:\n{done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Prints one line a job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help=f"a clone with a finished nano run; by default one is made of {COMMIT}")
    parser.add_argument("--now", type=Path, help="the same of this version; by default one is made")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[], help="stages")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medbench-starts-") as place:
        base = args.base or finished(checkout(Path(place) / "base"))
        now = args.now or finished(copy_sources(Path(place) / "now"))
        print(f"{'job':<42} {'base':>8} {'now':>8} {'ratio':>6}  (CPU s, median of {args.pairs} pairs)")
        for job in JOBS:
            if args.only and job.stage not in args.only:
                continue
            for folder in (base, now):
                seconds(folder, job)  # bytecode and files are in the cache then
            taken = [(seconds(base, job), seconds(now, job)) for _ in range(args.pairs)]
            before, after = (statistics.median(side) for side in zip(*taken, strict=True))
            ratio = statistics.median(mine / theirs for theirs, mine in taken)
            print(f"{job.stage + ' ' + '/'.join(job.names):<42} {before:8.2f} {after:8.2f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
