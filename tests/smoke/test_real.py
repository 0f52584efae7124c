"""The mini models over real images and questions: every cell, every certificate, and baselines that say what the tasks are worth.

`make test` runs the generalists of two families, `make test-all` then their specialists and the controls, too; the demo has the third
family, and the controls of all.
"""

import json
import os
import re

import polars as pl
import pytest

from medbench import cells, config
from tests.conftest import ROOT, Clone

REAL = os.environ.get("MEDBENCH_REAL_DATA")
pytestmark = pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real images")
GENERALISTS = {"models": "mini-clip, mini-llava", "modes": "ots, lp, lora"}
BOTH = {"models": "mini-clip, mini-medclip, mini-llava, mini-llava-med"}


@pytest.fixture(scope="module", params=[pytest.param(GENERALISTS, id="generalists"), pytest.param(BOTH, id="both", marks=pytest.mark.full)])
def run(workplace: Clone, request: pytest.FixtureRequest) -> Clone:
    real = workplace.folder / "config/real.yaml"
    text = (ROOT / "config/real.yaml").read_text()
    for key, names in request.param.items():
        text = re.sub(rf"^{key}: \[.*\]", f"{key}: [{names}]", text, flags=re.MULTILINE)
    real.write_text(text)
    outcome = workplace.snakemake(configfile="config/real.yaml")
    assert outcome.code == 0, outcome.output[-8000:]
    return workplace


def test_every_cell_is_there(run: Clone) -> None:
    loaded = config.from_files([run.folder / "config/config.yaml", run.folder / "config/real.yaml"], run.folder)
    for cell in cells.grid(loaded):
        assert (run.folder / f"results/intervals/{cell}.parquet").exists(), f"{cell} is missing"


def test_baselines_show_what_the_tasks_are_worth(run: Clone) -> None:
    """Raw pixels solve two of the sets and say nothing about the third; the page says so."""
    auroc = {}
    for dataset in ("mednist", "radiology-organ", "bccd"):
        table = pl.read_parquet(run.folder / f"results/intervals/{dataset}/raw-pixels/lp.parquet")
        row = table.filter((pl.col("metric") == "auroc") & (pl.col("subset") == "all") & (pl.col("method") == "percentile"))
        auroc[dataset] = row["estimate"].item()
    assert auroc["mednist"] > 0.95
    assert auroc["radiology-organ"] > 0.95
    assert abs(auroc["bccd"] - 0.5) < 0.12
    page = (run.folder / "results/report/real/index.html").read_text()
    assert "Raw pixels" in page


def test_vqa_rad_is_whole(run: Clone) -> None:
    data = run.folder / "results/data/vqa-rad"
    splits = {split: pl.read_parquet(data / f"{split}.parquet") for split in ("train", "val", "test")}
    assert splits["train"].height + splits["val"].height == 1793
    assert dict(splits["test"]["answer_type"].value_counts().iter_rows()) == {"closed": 251, "open": 200}


@pytest.mark.parametrize(("dataset", "distinct"), [("vqa-rad", 5), ("bccd-vqa", 2)])
def test_questions_have_both_baselines_and_answers_are_text(run: Clone, dataset: str, distinct: int) -> None:
    """Mini models give BCCD's four questions one answer each, as the baseline of the question alone does; VQA-RAD's vary."""
    page = (run.folder / "results/report/real/index.html").read_text()
    assert "Constant answer" in page and "Question only" in page
    test = pl.read_parquet(run.folder / f"results/data/{dataset}/test.parquet")
    folders = sorted((run.folder / f"results/predictions/{dataset}").glob("mini-llava*"))
    assert folders
    for folder in folders:
        for mode in ("ots", "lora"):
            answers = pl.read_parquet(folder / f"{mode}.parquet")
            assert answers["sample_id"].to_list() == test["sample_id"].to_list()
            assert answers["answer"].n_unique() >= distinct
            assert answers["answer"].str.contains(r"^[\x20-\x7e]*$").mean() > 0.95, "text, not noise"


def test_no_job_needs_more_than_three_gigabytes(run: Clone) -> None:
    peaks = {job: json.loads(text)["peak_rss_mb"] for job, text in run.records().items()}
    assert max(peaks.values()) < 3000, sorted(peaks.items(), key=lambda item: -item[1])[:3]
