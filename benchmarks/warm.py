"""What a model job takes by itself, and forked from the warm process: `python -m benchmarks.warm`.

The jobs of the nano run that load its CLIP (`prompts`, `embed`, `adapt` and `predict` with LoRA), each by the stage's own command,
alone and handed over, in turns; medians of three. The first job, which waits for the imports, is printed apart: that is paid once a
start of Snakemake.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.campaign import COMMAND, copy_sources
from medbench.jobs import warm

DATASET, MODEL = "nano-radiology", "nano-clip"
JOBS = {
    f"prompts {DATASET} {MODEL}": f"prompts/{DATASET}/{MODEL}.parquet",
    f"embed {DATASET} {MODEL}": f"embeddings/{DATASET}/{MODEL}.parquet",
    f"adapt {DATASET} {MODEL} lora": f"adapters/{DATASET}/{MODEL}/lora",
    f"predict {DATASET} {MODEL} lora": f"predictions/{DATASET}/{MODEL}/lora.parquet",
}


def timed(folder: Path, job: str, address: str) -> float:
    """Seconds of one job, its output removed before; without an address it runs alone."""
    output = folder / "results" / JOBS[job]
    if output.is_dir():
        shutil.rmtree(output)
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "medbench", *job.split(), "--configfile", "config/nano.yaml"]
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL, env={**os.environ, **warm.THREADS, warm.VARIABLE: address})
    return time.perf_counter() - begun


def main() -> None:
    """Prints one line a job."""
    with tempfile.TemporaryDirectory(prefix="medbench-warm-") as place:
        folder = copy_sources(Path(place) / "clone")
        targets = [f"results/models/{MODEL}", f"results/data/{DATASET}/card.json"]
        subprocess.run([*COMMAND[:1], *targets, *COMMAND[1:]], cwd=folder, check=True, capture_output=True)
        warm.start()  # dies with this process
        address = os.environ[warm.VARIABLE]
        print(f"the first job, for which the warm process imports: {timed(folder, next(iter(JOBS)), address):.1f} s")
        for job in JOBS:
            took: dict[str, list[float]] = {"": [], address: []}
            for _ in range(3):
                for way in took:
                    took[way].append(timed(folder, job, way))
            alone, forked = (statistics.median(took[way]) for way in ("", address))
            print(f"{job}: alone {alone:.1f} s, forked {forked:.1f} s: {alone / forked:.1f}x", flush=True)


if __name__ == "__main__":
    main()
