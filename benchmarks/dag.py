"""How long Snakemake needs to see what is to be done, beside a bare workflow of as many jobs: the study's grid, large grids, finished ones.

    python -m benchmarks.dag [--grids paper 216 1800 15000] [--finished] [--rounds 3]

A grid is `config/paper.yaml`, or a generated registry (data sets x models x ots, lp, lora) of so many cells, in its own clone. The bare
workflow has the same jobs: each rule of ours with its outputs, inputs looked up in a table, one param of the length that ours has on
average, and nothing else: no log, no resources, no environment, no configuration. It asks for the same files as ours, predictions and
intervals beside the report, since each of them is looked at. Both are looked at in turn, with the same options and profile, and with
compiled bytecode, whatever this shell says of it: users have it, and only ours has modules of its own. Ratios are medians over the
rounds; minima stand beside them, which another load on the machine changes least.

With `--finished` every output is there, with a run record beside ours, and Snakemake's own metadata say that its job made it.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import yaml

from medbench import command, config, paths, stages
from medbench.jobs import digests
from medbench.jobs import records as run_records

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("Snakefile", "workflow", "medbench", "config", "profiles", "resources")
SHAPES = {216: (12, 6), 1800: (30, 20), 15000: (100, 50)}  # cells -> data sets, models; three modes each
PAPER = ("--configfile", "config/paper.yaml")
SAMPLE = 50  # jobs of a rule whose params are measured
RECORDING = """
import asyncio
import atexit


async def record():
    for job in workflow.dag.jobs:
        await workflow.persistence.finished(job)


atexit.register(lambda: asyncio.run(record()))  # Snakemake has closed its own loop by then
"""  # appended to a Snakefile once: metadata of every job, as Snakemake writes them when it is done


def make_clone(folder: Path) -> None:
    """The sources as they are."""
    folder.mkdir()
    for name in SOURCES:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, folder / name)


def enlarge(folder: Path, n_datasets: int, n_models: int) -> None:
    """Registries of that size; models are hub ids, data sets are phantoms."""
    models = yaml.safe_load((ROOT / "config/models.yaml").read_text())
    datasets = yaml.safe_load((ROOT / "config/datasets.yaml").read_text())
    model_names = [f"model-{i}" for i in range(n_models)]
    dataset_names = [f"set-{i}" for i in range(n_datasets)]
    for i, name in enumerate(model_names):
        models[name] = {
            "family": "clip",
            "role": "specialist" if i % 2 else "generalist",
            "architecture": "clip",
            "checkpoint": f"some/{name}",
            "pretrained_on": ["x-ray"] if i % 2 else ["everyday"],
        }
    for name in dataset_names:
        datasets[name] = datasets["phantom-radiology"]
    (folder / "config/models.yaml").write_text(yaml.safe_dump(models))
    (folder / "config/datasets.yaml").write_text(yaml.safe_dump(datasets))
    run = {"run": "large", "seed": 0, "models": model_names, "datasets": dataset_names, "modes": ["ots", "lp", "lora"]}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(run))


class Call(NamedTuple):
    """What one call of Snakemake took."""

    seconds: float  # wall time
    busy: float  # seconds of a core, its own and its children's: what another load on the machine changes least
    memory: float  # peak, GB
    output: str

    def __str__(self) -> str:
        return f"{self.busy:.1f} s of a core, {self.seconds:.1f} s by the clock, {self.memory:.2f} GB"


def snakemake(folder: Path, *arguments: str) -> Call:
    """One dry run in a folder."""
    log = folder / "snakemake.log"
    started = time.perf_counter()
    with log.open("w") as stream:
        command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "2", "--dry-run", *arguments]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""}
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    text = log.read_text()
    if status:
        sys.exit(f"snakemake failed:\n{text[-3000:]}")
    return Call(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, text)


class Job(NamedTuple):
    """A job as a dry run shows it; `names`: the values of its wildcards."""

    rule: str
    names: tuple[str, ...]
    inputs: list[str]
    outputs: list[str]


def jobs(output: str) -> list[Job]:
    """All jobs of a dry run but `all`; those of remote models count to their stage."""
    return [job for job in _blocks(output) if job.rule != "all"]


def targets(output: str) -> list[str]:
    """The files that a dry run was asked for: inputs of `all`."""
    return next(job.inputs for job in _blocks(output) if job.rule == "all")


def _blocks(output: str) -> list[Job]:
    found = []
    for block in re.split(r"(?m)^(?:local)?rule (?=\w+:$)", output)[1:]:
        lines = dict(re.findall(r"(?m)^    (\w+): (.*)$", block))
        files = [lines[key].split(", ") if key in lines else [] for key in ("input", "output")]
        names = [pair.partition("=")[2] for pair in lines.get("wildcards", "").split(", ")]
        found.append(Job(block.partition(":")[0].removesuffix("_remote"), tuple(names), *files))
    return found


def load(clone: Path, configfiles: tuple[str, ...]) -> config.Config:
    """As a start does (workflow/rules/common.smk)."""
    loaded = config.from_files([clone / "config/config.yaml", *(clone / name for name in configfiles)], clone)
    return command.as_started(loaded)


def make_bare(folder: Path, clone: Path, output: str, configfiles: tuple[str, ...]) -> None:
    """The bare workflow of the jobs that a clone has, as its dry run names them."""
    folder.mkdir()
    shutil.copytree(clone / "profiles", folder / "profiles")
    loaded = load(clone, configfiles)
    rules = dict[str, list[Job]]()
    for job in jobs(output):
        rules.setdefault(job.rule, []).append(job)
    (folder / "jobs.json").write_text(json.dumps({rule: {"/".join(job.names): job.inputs for job in own} for rule, own in rules.items()}))
    constraints = ", ".join(f"{key}={paths.SLUG.pattern!r}" for key in ("dataset", "model", "mode", "run"))
    parts = [
        "import json\nJOBS = json.load(open('jobs.json'))",
        f"wildcard_constraints: {constraints}",
        f"rule all:\n    input: {targets(output)!r}",
    ]
    for rule, own in rules.items():
        size = round(mean(len(stages.look(loaded, rule, job.names).rerun_key) for job in own[:SAMPLE]))
        parts.append(
            f"rule {rule}:\n"
            f"    input: lambda wildcards: JOBS[{rule!r}]['/'.join(wildcards)]\n"
            f"    output: {', '.join(_flagged(path) for path in patterns(rule))}\n"
            f"    params: tracked=lambda wildcards: '/'.join(wildcards) + {'x' * size!r}\n"
            f"    shell: 'make-{rule} {{wildcards}}'"
        )
    (folder / "Snakefile").write_text("\n\n".join(parts) + "\n")


def patterns(rule: str) -> list[Path]:
    """Outputs of a rule with wildcards."""
    declared = stages.get(rule)
    return declared.outputs(*(f"{{{key}}}" for key in declared.keys))


def _flagged(path: Path) -> str:
    return repr(str(path)) if path.suffix else f"directory({str(path)!r})"


def finish(folder: Path, todo: list[Job], options: tuple[str, ...], loaded: config.Config | None) -> None:
    """Make every output, empty and of one age, and Snakemake's metadata of it; with a configuration run records as jobs write them too."""
    for name in (name for job in todo for name in job.outputs):
        file = folder / name
        if not file.suffix:  # a folder of weights, of figures
            (file / "file").parent.mkdir(parents=True, exist_ok=True)
            (file / "file").touch()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1.7e9, 1.7e9))
    for job in todo if loaded else ():
        paths.run_record(folder / job.outputs[0]).write_text(run_record(folder, job, loaded))
    snakefile = folder / "Snakefile"
    own = snakefile.read_text()
    snakefile.write_text(own + RECORDING)
    snakemake(folder, *options)
    snakefile.write_text(own)


def _file(name: str) -> str:
    return name if Path(name).suffix else f"{name}/file"


def run_record(folder: Path, job: Job, loaded: config.Config | None) -> str:
    """As long as a real one, and in agreement with the files that are there."""
    declared = stages.get(job.rule)
    params = declared.params(loaded, *job.names)
    record = {
        "stage": job.rule,
        "names": job.names,
        "params": json.loads(declared.fingerprint(params)),
        "versions": run_records.versions(),
        "modules": sorted(sys.modules)[:60],
        "outputs": {name: {"sha256": "0" * 64, "stamp": digests.stamp(folder / name)} for name in map(_file, job.outputs)},
        "inputs": {_file(name): "0" * 64 for name in job.inputs},
    }
    return json.dumps(record, indent=1, sort_keys=True)


def compare(what: str, clone: Path, bare: Path, options: tuple[str, ...], rounds: int, finished: bool) -> list[Job]:
    """Print both sides' calls with the least seconds of a core, and ratios. Returns the clone's jobs."""
    pairs: list[tuple[Call, Call]] = []
    for _ in range(rounds):
        own = snakemake(clone, *options)
        if not bare.exists():
            make_bare(bare, clone, own.output, options[1:])
        pairs.append((own, snakemake(bare)))
    found, others = ([job[:2] for job in jobs(call.output)] for call in pairs[0])
    if sorted(found) != sorted(others) or finished == bool(found):
        sys.exit(f"{what}: {len(found)} jobs, the bare workflow has {len(others)}")
    if finished and any("missing provenance" in call.output for call in pairs[0]):
        sys.exit(f"{what}: Snakemake knows nothing of how these files were made")
    least = [min(calls, key=lambda call: call.busy) for calls in zip(*pairs, strict=True)]
    for side, call in zip(("medbench", "bare"), least, strict=True):
        print(f"  {what}, {side}: {call}")
    busy, wall = (sorted(getattr(own, key) / getattr(other, key) for own, other in pairs) for key in ("busy", "seconds"))
    spread = f"{median(busy):.2f} in the median ({busy[0]:.2f} to {busy[-1]:.2f}), {median(wall):.2f} by the clock"
    ratios = f"{least[0].busy / least[1].busy:.2f} of the least seconds of a core, {spread}"
    print(f"  {what}, ratio: {ratios} ({rounds} rounds)", flush=True)
    return jobs(pairs[0][0].output)


def measure(grid: str, rounds: int, finished: bool) -> None:
    """All of one grid."""
    with tempfile.TemporaryDirectory() as name:
        clone, bare, options = Path(name, "clone"), Path(name, "bare"), PAPER if grid == "paper" else ()
        make_clone(clone)
        if grid != "paper":
            enlarge(clone, *SHAPES[int(grid)])
        print(f"{grid}:", flush=True)
        todo = compare("dry run", clone, bare, options, rounds, False)
        print(f"  {len(todo) + 1} jobs, {sum(len(job.inputs) for job in todo)} inputs", flush=True)
        if finished:
            loaded = load(clone, options[1:])
            for folder, own in ((clone, options), (bare, ())):
                finish(folder, todo, own, loaded if folder == clone else None)
            compare("dry run, all finished", clone, bare, options, rounds, True)


def main() -> None:
    """Print a few lines a grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", nargs="+", default=["paper", "15000"], choices=["paper", *map(str, sorted(SHAPES))])
    parser.add_argument("--finished", action="store_true", help="also with every cell finished")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ.pop("MEDBENCH_REAL_DATA", None)  # raw files that are there would be newer than the outputs that are made up
    for grid in args.grids:
        measure(grid, args.rounds, args.finished)


if __name__ == "__main__":
    main()
