"""duplicates: which samples another split of their data set holds too."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from medbench import paths, tables, tasks
from medbench.errors import MedbenchError
from medbench.stages import duplicates, interval, prepare, score
from medbench.tasks.vqa import PredictionsVqa, SamplesVqa
from tests.unit.test_data_helpers import CLASSES, entry, hub, labelled, picture

REAL = os.environ.get("MEDBENCH_REAL_DATA")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty raw folder beside the working directory."""
    for name in ("work", "raw"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "raw"


def three_splits(folder: Path) -> Path:
    """12 images, 4 a split."""
    return labelled(folder, [(f"{i:02d}.png", CLASSES[i % 2], paths.SPLITS[i // 4], f"p{i}") for i in range(12)])


def found(dataset: str = "toy") -> list[tuple[str, ...]]:
    duplicates.run(duplicates.Params(None), dataset)
    return tables.read(tables.Duplicates, paths.duplicates(dataset)).rows()


def test_no_duplicate_is_an_empty_table(raw: Path) -> None:
    prepare.run(entry(three_splits(raw)), "toy")
    assert found() == []


def test_bytes_pixels_and_both_directions(raw: Path) -> None:
    """00 of train is 04 of val and 08 of test byte for byte; 01 of train has the pixels of 09 of test."""
    three_splits(raw)
    for name in ("04.png", "08.png"):
        (raw / name).write_bytes((raw / "00.png").read_bytes())
    (raw / "09.png").write_bytes(picture(1, compress_level=1))
    prepare.run(entry(raw, allow_group_overlap=True), "toy")
    same, pixels = "exact-image", "exact-pixels"
    assert found() == [
        ("train", "00.png", "val", same, "04.png"),
        ("train", "00.png", "test", same, "08.png"),
        ("train", "01.png", "test", pixels, "09.png"),
        ("val", "04.png", "train", same, "00.png"),
        ("val", "04.png", "test", same, "08.png"),
        ("test", "08.png", "train", same, "00.png"),
        ("test", "08.png", "val", same, "04.png"),
        ("test", "09.png", "train", pixels, "01.png"),
    ]


def test_repeats_within_a_split_are_no_duplicates(raw: Path) -> None:
    three_splits(raw)
    (raw / "10.png").write_bytes((raw / "08.png").read_bytes())
    prepare.run(entry(raw), "toy")
    assert found() == []


def test_every_question_about_a_shared_image_has_its_row(raw: Path) -> None:
    prepare.run(entry(hub(raw), "hub-vqa", "vqa", allow_group_overlap=True), "toy")
    rows = found()
    ((_, test_id, holder, kind, first),) = (row for row in rows if row[0] == "test")
    assert (test_id, kind) == ("test-00000", "exact-image")
    others = [row for row in rows if row[0] == holder]  # both questions about image 0, which went to train or to val as one group
    assert [row[1] for row in others] == ["train-00000", "train-00001"] and first == "train-00000"
    assert len(rows) == 3


def test_no_image_is_read(raw: Path) -> None:
    prepare.run(entry(three_splits(raw)), "toy")
    path = paths.images("toy")
    pl.read_parquet(path, columns=["image_id", "pixel_digest", "perceptual_hash"]).write_parquet(path)
    assert found() == []


def test_a_missing_split_is_named(raw: Path) -> None:
    prepare.run(entry(three_splits(raw)), "toy")
    paths.samples("toy", "val").unlink()
    with pytest.raises(MedbenchError, match=r"results/data/toy/val.parquet: the table does not exist"):
        duplicates.run(duplicates.Params(None), "toy")


def test_the_job_imports_no_torch() -> None:
    code = "import sys, medbench.stages.duplicates; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "scipy", "transformers", "PIL"} & set(modules)


@pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real data")
def test_real_vqa_rad_has_hardly_a_leak_free_question(raw: Path) -> None:
    """202 of its 203 test images stand in train too, so closed accuracy on leak-free questions is undefined there, and says why."""
    prepare.run(entry(Path(str(REAL)) / "vqa-rad", "hub-vqa", "vqa", allow_group_overlap=True), "vqa-rad")
    duplicates.run(duplicates.Params(None), "vqa-rad")
    made = tables.read(tables.Duplicates, paths.duplicates("vqa-rad")).filter(pl.col("split") == "test")
    test = tables.read(SamplesVqa, paths.samples("vqa-rad", "test"))
    shared = test.filter(pl.col("sample_id").is_in(made["sample_id"].implode()))
    assert (test["image_id"].n_unique(), shared["image_id"].n_unique()) == (203, 202)
    assert (len(test), len(shared)) == (451, 446)
    assert set(made["kind"]) == {"exact-image"}

    cell = "vqa-rad", "model", "ots"
    answers = test.select("sample_id", "group_id", "answer_type", "is_yes_no", "question", reference="answer", answer=pl.lit("yes"))
    schema = tables.columns(PredictionsVqa)
    frame = answers.with_columns(finish_reason=pl.lit("stop", schema["finish_reason"]), n_tokens=pl.lit(1, pl.Int32))
    tables.write(PredictionsVqa, frame, paths.predictions(*cell))
    score.run(score.Params("vqa"), *cell)
    interval.run(interval.Params("vqa", tasks.get("vqa").primary, 0, 100, 100, 0.95, False, 30), *cell)
    rows = tables.read(tables.Intervals, paths.intervals(*cell)).filter(pl.col("metric") == "closed_accuracy", pl.col("method") == "logit")
    by_subset = {row["subset"]: row for row in rows.iter_rows(named=True)}
    assert by_subset["closed"]["n"] == 251 and by_subset["closed"]["estimate"] > 0
    assert by_subset["leak-free-closed"]["estimate"] is None
    assert by_subset["leak-free-closed"]["reason"] == "1 leak-free closed question, fewer than 30"  # of 5 leak-free ones
