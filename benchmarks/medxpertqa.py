"""MedXpertQA's 2,000 real questions with drawn images, end to end on a mini model with every control: time and memory of each job.

`MEDBENCH_REAL_DATA=<folder> python -m benchmarks.medxpertqa`, about a quarter of an hour of one core. A second model stands off the shelf
beside it, to be compared with. The folder holds
`mcq/medxpertqa/mm_test.hub-form.jsonl`. Images are drawn under the official names, in the official layout. The models have the demo's
LLaVA architecture, random weights and a context of 4,096 tokens (the demo's 512 are too short for these stems), so their answers mean
nothing: what is shown is that data, jobs, tables and the report hold. `--limit 60` takes the first questions alone. `--folder` is kept,
and a second start makes what is missing.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from PIL import Image

from benchmarks.campaign import copy_sources
from medbench.datasets.layouts.medxpertqa import TAIL
from medbench.demo import llavaformat

QUESTIONS = "mcq/medxpertqa/mm_test.hub-form.jsonl"
CONTROLS = ("ots-blank", "ots-shuffled", "ots-no-image", "ots-no-image-told", "ots-options-only")
MODELS = {"mini-one": ("generalist", "everyday", ["ots", *CONTROLS]), "mini-two": ("specialist", "mixed", ["ots"])}
"""Role, what it was pretrained on, modes."""
CONTEXT, ORDERS = 4096, 4
SKILLS = {"understanding": 554, "reasoning": 1446}
RUN = "run.yaml"


def data(folder: Path, source: Path, limit: int | None) -> list[dict[str, Any]]:
    """The official layout in `folder`: the table as it is, and an image of its own under every name that it gives."""
    lines = source.read_text(encoding="utf-8").splitlines()[:limit]
    rows = [json.loads(line) for line in lines]
    (folder / "MM").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    if not (table := folder / "MM/test.jsonl").exists():  # a touched table is read anew
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in dict.fromkeys(name for row in rows for name in row["images"]):
        if not (file := folder / "images" / name).exists():
            rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
            coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            coarse.resize((320, 240), Image.Resampling.BICUBIC).save(file, quality=90)
    return rows


def checkpoints(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Untrained models of the demo's architecture whose words are those of the questions, in hub format."""
    llavaformat.MAX_LENGTH = CONTEXT
    tokenizer = llavaformat.train_tokenizer([row["question"].partition(TAIL)[0] for row in rows] + [" ".join("ABCDE")])
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)
        llavaformat.save(llavaformat.build(tokenizer), tokenizer, folder / name)


def configure(folder: Path) -> None:
    """A run of the registry's own data set, with its files here in place of the hub's."""
    entry = yaml.safe_load((folder / "config/datasets.yaml").read_text(encoding="utf-8"))["medxpertqa-mm"]
    entry = {key: value for key, value in entry.items() if key not in ("source", "expected")} | {"raw_dir": str(folder / "raw")}
    mini = {"family": "mini", "architecture": "llava", "tasks": ["mcq"], "max_new_tokens": 8, "batch_size": 16}
    models = {
        name: {**mini, "role": role, "checkpoint": str(folder / name), "pretrained_on": [known], "modes": modes}
        for name, (role, known, modes) in MODELS.items()
    }
    for name, entries in {"datasets": {"medxpertqa-drawn": entry}, "models": models}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    run = {
        "run": "medxpertqa", "models": list(MODELS), "datasets": ["medxpertqa-drawn"], "modes": ["ots", *CONTROLS],
        "registries": {name: str(folder / f"{name}.yaml") for name in ("datasets", "models")},
    }  # fmt: skip
    (folder / RUN).write_text(yaml.safe_dump(run), encoding="utf-8")


def jobs(results: Path) -> Iterator[tuple[str, float, int]]:
    """Stage and names of every job that wrote a run record, its seconds and its memory at the most in MB."""
    for file in sorted(results.rglob("*.run.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        yield str(file.relative_to(results)).removesuffix(".run.json"), record["seconds"], record["peak_rss_mb"]


def check(results: Path, n: int) -> None:
    """Every cell answers every question, in as many orders as it should; skills are the data's own; no control is without its row."""
    samples = pl.read_parquet(results / "data/medxpertqa-drawn/test.parquet")
    counted = dict(samples["skill"].value_counts().iter_rows())
    print(f"{samples.height} questions, {samples['image_ids'].list.len().sum()} images; skills {counted}")
    assert samples.height == n and (n != sum(SKILLS.values()) or counted == SKILLS)
    cells = sorted((results / "predictions/medxpertqa-drawn").glob("*/*.parquet"))
    for cell in cells:
        frame = pl.read_parquet(cell)
        assert frame["sample_id"].to_list() == samples["sample_id"].to_list(), cell
        if cell.parent.name in MODELS:
            expected = [1 if is_positional else ORDERS for is_positional in frame["is_positional"]]
            assert frame["log_probabilities"].list.len().to_list() == expected, cell
    controls = pl.read_parquet(results / "gaps/medxpertqa/controls.parquet")
    assert set(controls.filter(pl.col("kind") == "mode")["control"]) == set(CONTROLS) and controls["gain"].null_count() == 0
    print(f"{len(cells)} cells, {controls.height} rows of controls, none without a gain")


def main() -> None:
    """Print seconds and memory of every job, and what was checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    real = os.environ.get("MEDBENCH_REAL_DATA")
    if not real or not (source := Path(real) / QUESTIONS).is_file():
        raise SystemExit(f"MEDBENCH_REAL_DATA must name a folder with {QUESTIONS}")
    with tempfile.TemporaryDirectory(prefix="medbench-medxpertqa-") as place:
        folder = (given.folder or Path(place)).absolute() / "clone"
        if not folder.exists():
            copy_sources(folder)
        rows = data(folder / "raw", source, given.limit)
        if not all((folder / name).exists() for name in MODELS):
            checkpoints(folder, rows)
        configure(folder)
        begun = time.monotonic()
        command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "1", "--configfile", RUN]
        if subprocess.run(command, cwd=folder, check=False).returncode:
            raise SystemExit("the run failed")
        print(f"whole run: {time.monotonic() - begun:.0f} s by the clock")
        for name, seconds, memory in jobs(folder / "results"):
            print(f"{name}: {seconds:.1f} s, {memory} MB")
        check(folder / "results", len(rows))


if __name__ == "__main__":
    main()
