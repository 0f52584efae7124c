"""The demo's known truth over several seeds: cohorts, pretraining, probes, adapters and resamples all follow the seed.

    python benchmarks/demo_seeds.py [--seeds 0 1 2] [--modes ots lp lora]

For each seed a clone in a temporary folder runs the demo grid. Printed per family and data set, with paired 95% intervals
over patients: RQ1 (generalist - specialist, off the shelf; in-domain data sets), RQ2 - RQ1 (what adaptation gives the
generalist: adapted - off the shelf), and the AUROC of raw pixels; then wall time of the run and of a second call, the largest memory
of a job, and what score, interval and gaps jobs take.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("Snakefile", "workflow", "medbench", "config", "profiles")
FAMILIES = {"clip": ("mini-clip", "mini-medclip"), "siglip": ("mini-siglip", "mini-medsiglip")}
PHANTOMS = ("phantom-radiology", "phantom-pathology", "phantom-dermatology", "phantom-ophthalmology")


class Difference(NamedTuple):
    """A paired difference of AUROC with its percentile interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def auroc(results: Path, dataset: str, model: str, mode: str) -> tuple[float, np.ndarray]:
    """Estimate and the replicates of the intervals [1000]."""
    table = pl.read_parquet(results / f"intervals/{dataset}/{model}/{mode}.parquet")
    row = table.filter((pl.col("metric") == "auroc") & (pl.col("subset") == "all") & (pl.col("method") == "percentile"))
    return row["estimate"].item(), row["replicates"].item().to_numpy()[: row["n_resamples"].item()]


def difference(results: Path, dataset: str, first: tuple[str, str], second: tuple[str, str]) -> Difference:
    """First cell minus second, on the resamples that they share."""
    (a, drawn_a), (b, drawn_b) = auroc(results, dataset, *first), auroc(results, dataset, *second)
    low, high = np.percentile(drawn_a - drawn_b, [2.5, 97.5])
    return Difference(a - b, float(low), float(high))


def run(seed: int, modes: list[str], folder: Path) -> float:
    """Run the demo with a seed; wall time in seconds. A second call finds the first one's results."""
    if not (folder / "Snakefile").exists():
        for name in SOURCES:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, folder / name)
    (folder / "config/seed.yaml").write_text(f"seed: {seed}\nmodes: [{', '.join(modes)}]\n")
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "--quiet", "all", "--configfile", "config/seed.yaml"]
    if subprocess.run(command, cwd=folder, env=dict(os.environ)).returncode:
        sys.exit(f"seed {seed}: the demo failed; see {folder}/logs")
    return time.perf_counter() - started


def show(seed: int, modes: list[str], results: Path) -> bool:
    """Print one seed's rows; True when the known truth holds."""
    holds = True
    for dataset in PHANTOMS:
        pixels, _ = auroc(results, dataset, "raw-pixels", "lp")
        holds &= pixels <= 0.70
        for family, (generalist, specialist) in FAMILIES.items():
            gap = difference(results, dataset, (generalist, "ots"), (specialist, "ots"))
            lifts = {mode: difference(results, dataset, (generalist, mode), (generalist, "ots")) for mode in modes if mode != "ots"}
            in_domain = dataset in PHANTOMS[:2]
            if in_domain:
                holds &= gap.high < 0 and all(lift.low > 0 for lift in lifts.values())
            name = "RQ1" if in_domain else "(out of domain)"
            lifted = "  ".join(f"{mode} - ots {lift}" for mode, lift in lifts.items())
            print(f"| {seed} | {dataset} | {family} | {pixels:.3f} | {name} {gap} | {lifted} |", flush=True)
    return holds


def costs(seed: int, first: float, second: float, results: Path) -> None:
    """Print what a seed took: both calls of `snakemake`, the largest job, the slowest job of the stages that need no model."""
    records = [json.loads(path.read_text()) for path in results.rglob("*.run.json")]
    peak = max(records, key=lambda record: record["peak_rss_mb"])
    print(f"\nseed {seed}: {first:.0f} s, again {second:.0f} s; {len(records)} jobs, largest {peak['peak_rss_mb']} MB ({peak['command']})")
    for stage in ("score", "interval", "gaps"):
        own = [record for record in records if record["stage"] == stage]
        slowest, with_torch = max(record["seconds"] for record in own), sum(record["torch"] for record in own)
        print(f"  {stage}: slowest {slowest:.1f} s, {with_torch} of {len(own)} jobs imported torch", flush=True)


def main() -> None:
    """Run every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--modes", nargs="+", default=["ots", "lp", "lora"], help="a quicker look: --modes ots lp")
    args = parser.parse_args()
    print("| seed | data set | family | raw pixels | generalist - specialist, off the shelf | RQ2 - RQ1 |\n|---|---|---|---|---|---|")
    verdicts = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as name:
            seconds = run(seed, args.modes, Path(name))
            verdicts.append(show(seed, args.modes, Path(name, "results")))
            costs(seed, seconds, run(seed, args.modes, Path(name)), Path(name, "results"))
    print("the known truth holds on every seed" if all(verdicts) else "THE KNOWN TRUTH DOES NOT HOLD")
    sys.exit(not all(verdicts))


if __name__ == "__main__":
    main()
