"""Own images, by the example of docs/own-data.md: from the table to the report, then what a correction or a replaced image reruns."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.conftest import ROOT, Clone, make_clone
from tests.workflow.test_status import states

PAGE = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
MODELS = ("mini-clip", "mini-medclip")
TRAINING = {"pretrain", "embed", "prompts", "adapt"}


def block(begin: str) -> str:
    """The block of the page that begins so."""
    (found,) = [text for text in re.findall(r"^```\w*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if text.startswith(begin)]
    return found


@pytest.fixture(scope="module")
def finished_own(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The example as it stands, with more rows of its kind, run to its end."""
    clone = make_clone(tmp_path_factory.mktemp("own") / "clone")
    images = clone.folder / "my-moles/images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = [block("Filename").splitlines()[0]]
    for number in range(48):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(images / f"{number:04d}.png")
        split = ("train", "train", "valid", "test")[number // 2 % 4]
        rows.append(f"images\\{number:04d}.png;{('benign', 'malignant')[number % 2]};P{number:02d};{split}")
    (clone.folder / "my-moles/labels.csv").write_text("\n".join(rows) + "\n\n")
    for name in ("my-data.yaml", "my-run.yaml"):
        (clone.folder / name).write_text(block(f"# {name}"))
    outcome = clone.snakemake(configfile="my-run.yaml")
    assert outcome.code == 0, outcome.output
    return clone


@pytest.fixture
def own(finished_own: Clone, tmp_path: Path) -> Iterator[Clone]:
    """A copy of it: every image has another inode and time than those that were read."""
    shutil.copytree(finished_own.folder, tmp_path / "clone", symlinks=True)
    yield Clone(tmp_path / "clone")
    shutil.rmtree(tmp_path / "clone", ignore_errors=True)


def plan(clone: Clone) -> set[str]:
    return set(clone.plan(configfile="my-run.yaml"))


def stages(jobs: set[str]) -> set[str]:
    return {job.split()[0] for job in jobs}


def test_touched_and_copied_images_rerun_nothing_and_replaced_ones_are_said(own: Clone) -> None:
    images = own.folder / "my-moles/images"
    for file in images.iterdir():
        os.utime(file)
    assert plan(own) == set()
    old, times = (images / "0006.png").read_bytes(), (images / "0006.png").stat()
    (images / "0006.png").write_bytes(bytes(reversed(old)))
    os.utime(images / "0006.png", ns=(times.st_atime_ns, times.st_mtime_ns))  # of equal size and time
    (images / "0007.png").unlink()
    outcome = own.snakemake("--dry-run", configfile="my-run.yaml")
    assert "2 of its images are replaced or gone (images/0006.png, images/0007.png)" in outcome.output, outcome.output
    assert {"prepare", "embed", "adapt"} <= stages(plan(own))
    outcome = own.snakemake(configfile="my-run.yaml")
    assert outcome.code != 0 and "labels.csv row 9: the image file does not exist: " in outcome.output, outcome.output


def test_a_corrected_test_label_retrains_nothing(own: Clone) -> None:
    """Only what reads the label runs again; a corrected label of train adapts again and embeds nothing."""
    weights = {file: file.read_bytes() for file in (own.folder / "results/adapters").rglob("*.safetensors")}
    own.edit("my-moles/labels.csv", "0006.png;benign", "0006.png;malignant")
    planned = plan(own)
    assert "prepare my-moles" in planned and not stages(planned) & TRAINING, planned
    assert {job for job, (state, _) in states(own, "my-run.yaml").items() if state == "stale"} == planned
    outcome = own.snakemake(configfile="my-run.yaml")
    assert outcome.code == 0, outcome.output
    assert outcome.executed == planned and "interval my-moles/mini-clip/lp" in planned
    records = own.records()
    assert not [job for job in outcome.executed if json.loads(records[job])["torch"]], "no model is loaded: answers are kept"
    assert weights and {file: file.read_bytes() for file in weights} == weights
    assert plan(own) == set()
    table = pl.read_parquet(own.folder / "results/predictions/my-moles/mini-clip/lp.parquet")
    assert table.filter(pl.col("sample_id") == "images/0006.png")["label"].to_list() == [1]

    own.edit("my-moles/labels.csv", "0000.png;benign", "0000.png;malignant")
    planned = plan(own)
    assert {job for job in planned if job.startswith("adapt")} == {f"adapt my-moles/{model}/lp" for model in (*MODELS, "raw-pixels")}
    assert not stages(planned) & {"pretrain", "embed", "prompts"} and "predict my-moles/mini-clip/ots" not in planned, planned


def test_a_set_for_testing_alone_runs_off_the_shelf(own: Clone) -> None:
    table = own.folder / "my-moles/labels.csv"
    table.write_text(re.sub(";(train|valid)$", ";test", table.read_text(), flags=re.MULTILINE))
    outcome = own.snakemake(configfile="my-run.yaml")
    assert outcome.code == 0, outcome.output
    assert "TEST ONLY: my-moles: no row is for training: lp and baselines are left out" in outcome.output
    assert {job for job in outcome.executed if job.startswith("predict")} == {f"predict my-moles/{model}/ots" for model in MODELS}
    outcome = own.snakemake("results/predictions/my-moles/mini-clip/lp.parquet", "--dry-run", configfile="my-run.yaml")
    assert outcome.code != 0 and "the data set has no row for training; choose a mode off the shelf" in outcome.output
