"""What a kill costs a LoRA training: killed at 90% of its time and started again, against one that was left alone.

`python -m benchmarks.resume`. The training of a nano model, contrastive and generative, by the stage's own command, with as many
epochs as make it last a minute or more; mini models and data are made first. Cost = (time until the kill + time of the rerun - time
undisturbed) / time undisturbed, starts of Python and torch counted.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.campaign import copy_sources

CELLS = {"nano-radiology/nano-clip/lora": 320, "nano-vqa-radiology/nano-llava/lora": 72}  # epochs


def lengthen(folder: Path) -> None:
    """The cells' models train for more epochs."""
    path = folder / "config/models.yaml"
    models = yaml.safe_load(path.read_text())
    for cell, epochs in CELLS.items():
        entry = models[cell.split("/")[1]]
        entry["overrides"] = {"lora": {**entry["overrides"]["lora"], "epochs": epochs}}
    path.write_text(yaml.safe_dump(models, sort_keys=False))


def adapt(folder: Path, cell: str) -> "subprocess.Popen[bytes]":
    """The stage's own command."""
    command = [sys.executable, "-m", "medbench", "adapt", *cell.split("/"), "--configfile", "config/nano.yaml"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)


def timed(folder: Path, cell: str) -> float:
    """Seconds of a whole call."""
    begun = time.monotonic()
    if adapt(folder, cell).wait():
        raise SystemExit(f"adapt {cell} failed")
    return time.monotonic() - begun


def weights(folder: Path, cell: str) -> str:
    """Digest of what was trained."""
    files = sorted((folder / "results/adapters" / cell).glob("weights/*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def measure(folder: Path, cell: str, share: float) -> str:
    """One line: seconds undisturbed, until the kill, of the rerun, and what the kill cost. Raises SystemExit when the weights differ."""
    whole = timed(folder, cell)
    undisturbed = weights(folder, cell)
    begun = time.monotonic()
    killed = adapt(folder, cell)
    time.sleep(share * whole)
    if killed.poll() is not None:
        raise SystemExit(f"{cell} ended before it could be killed: the machine is not quiet")
    killed.kill()
    killed.wait()
    before = time.monotonic() - begun
    again = timed(folder, cell)
    if weights(folder, cell) != undisturbed:
        raise SystemExit(f"{cell}: the weights after a kill are not those of the undisturbed training")
    cost = (before + again - whole) / whole
    return f"{cell}: undisturbed {whole:.1f} s, killed after {before:.1f} s, rerun {again:.1f} s: the kill cost {cost:.1%}; weights equal"


def main(arguments: list[str] | None = None) -> None:
    """Prints a line a cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=float, default=0.9, help="share of the undisturbed time after which the kill comes")
    given = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory(prefix="medbench-resume-") as place:
        folder = copy_sources(Path(place) / "clone")
        lengthen(folder)
        needed = [f"results/models/{cell.split('/')[1]}" for cell in CELLS] + [
            f"results/data/{cell.split('/')[0]}/card.json" for cell in CELLS
        ]
        command = [str(Path(sys.executable).with_name("snakemake")), *needed, "--cores", "all", "--configfile", "config/nano.yaml"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        for cell in CELLS:
            print(measure(folder, cell, given.at), flush=True)


if __name__ == "__main__":
    main()
