"""How long Snakemake needs to see what is to be done: 216 cells, 15,000 cells, 15,000 finished cells.

    python -m benchmarks.dag [--cells 216 15000] [--finished]

Makes a clone with a generated registry (data sets x models x ots, lp, lora) in a temporary folder and measures dry runs
of it: wall time and peak memory of the `snakemake` process. With `--finished` every output is created empty, with a run record
beside it, and marked done through `snakemake --touch` first, so that the metadata of every job is read, as after a real run.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from medbench.jobs import records

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("Snakefile", "workflow", "medbench", "config", "profiles")
SHAPES = {216: (12, 6), 1800: (30, 20), 15000: (100, 50)}  # data sets, models; three modes each


def make_clone(folder: Path, n_datasets: int, n_models: int) -> None:
    """The sources with registries of that size; models are hub ids, data sets are phantoms."""
    for name in SOURCES:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, folder / name)
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
    busy: float  # seconds of a core, its own and its children's: what another load on the machine does not change
    memory: float  # peak, GB
    output: str

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.busy:.1f} s of a core), {self.memory:.2f} GB"


def snakemake(folder: Path, *arguments: str) -> Call:
    """One call in the clone."""
    log = folder / "snakemake.log"
    started = time.perf_counter()
    with log.open("w") as stream:
        command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "2", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONHASHSEED": "0"})
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    text = log.read_text()
    if status:
        sys.exit(f"snakemake failed:\n{text[-3000:]}")
    return Call(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, text)


def finish(folder: Path) -> None:
    """Create every output of the run empty and have Snakemake record it as done."""
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    from medbench import cells, config, paths

    record = json.dumps({"versions": records.versions(), "modules": sorted(sys.modules)[:60]})  # a run record's size
    loaded = config.from_files([folder / "config/config.yaml"], folder)
    for cell in cells.grid(loaded):
        files = [*paths.data(cell.dataset), paths.embeddings(*cell[:2]), paths.prompts(*cell[:2]), paths.predictions(*cell)]
        files += [paths.scores(*cell), paths.duplicates(cell.dataset), paths.intervals(*cell)]
        if cell.mode != "ots":
            certificate, weights = paths.adapter_files(*cell)
            files.append(certificate)
            weights.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            paths.run_record(file).write_text(record)
    for file in [*paths.gaps("large"), paths.overlap("large"), paths.report("large") / "index.html"]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    print(f"(marking them done took {snakemake(folder, '--touch', '--forceall', '--quiet', 'all')})", flush=True)


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[216, 15000], choices=sorted(SHAPES))
    parser.add_argument("--finished", action="store_true", help="also the largest grid with every cell finished (takes several minutes)")
    args = parser.parse_args()
    for n in args.cells:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_clone(folder, *SHAPES[n])
            print(f"dry run, {n} cells: {snakemake(folder, '--dry-run', '--quiet', 'rules')}", flush=True)
            if args.finished and n == max(args.cells):
                finish(folder)
                call = snakemake(folder, "--dry-run")
                if "Nothing to be done" not in call.output:
                    sys.exit(f"not finished:\n{call.output[-2000:]}")
                print(f"dry run, {n} finished cells: {call}", flush=True)
    print(f"(this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB)")


if __name__ == "__main__":
    main()
