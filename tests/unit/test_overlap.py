"""overlap: what data sets and splits share."""

import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from medbench import paths, tables
from medbench.errors import MedbenchError
from medbench.stages import overlap, prepare
from tests.unit.test_data_helpers import CLASSES, entry, hub, labelled, picture

REAL = os.environ.get("MEDBENCH_REAL_DATA")


def rows(frame: pl.DataFrame, kind: str, dataset: str) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(split, other data set, other split) -> shared, total."""
    of_kind = frame.filter((pl.col("kind") == kind) & (pl.col("dataset") == dataset))
    return {(row["split"], row["other_dataset"], row["other_split"]): (row["shared"], row["total"]) for row in of_kind.to_dicts()}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory; raw folders go beside it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def three_splits(folder: Path) -> Path:
    """12 images, 4 a split; groups p0 to p11."""
    folder.mkdir()
    return labelled(folder, [(f"{i:02d}.png", CLASSES[i % 2], paths.SPLITS[i // 4], f"p{i}") for i in range(12)])


def test_sets_that_share_nothing_have_no_row(work: Path) -> None:
    prepare.run(entry(three_splits(work / "raw")), "one")
    overlap.run(overlap.Params(("one",), 4), "r")
    assert tables.read(tables.Overlap, paths.overlap("r")).height == 0


def test_images_pixels_and_groups(work: Path) -> None:
    first, second = three_splits(work / "first"), three_splits(work / "second")
    for i in range(12):  # other pixels than the first set's, the same group names
        (second / f"{i:02d}.png").write_bytes(picture(100 + i))
    shutil.copy(first / "00.png", second / "08.png")  # train -> test, same bytes
    shutil.copy(first / "01.png", second / "09.png")
    (second / "10.png").write_bytes(picture(2, compress_level=1))  # the same pixels as first/02.png
    prepare.run(entry(first), "first")
    prepare.run(entry(second), "second")
    overlap.run(overlap.Params(("first", "second"), 4), "r")
    found = tables.read(tables.Overlap, paths.overlap("r"))
    assert rows(found, "exact-image", "second") == {("test", "first", "train"): (2, 4)}
    assert rows(found, "exact-image", "first") == {("train", "second", "test"): (2, 4)}
    assert rows(found, "exact-pixels", "second") == {("test", "first", "train"): (3, 4)}
    assert found.filter(pl.col("kind") == "group").height == 0  # p0 of one set is another patient than p0 of the other
    examples = found.filter((pl.col("kind") == "exact-pixels") & (pl.col("dataset") == "second"))["examples"]
    assert examples.to_list() == [["08.png", "09.png", "10.png"]]


def test_groups_in_several_splits_of_one_set(work: Path) -> None:
    raw = work / "raw"
    raw.mkdir()
    prepare.run(entry(hub(raw), "hub-vqa", "vqa", allow_group_overlap=True), "vqa")
    overlap.run(overlap.Params(("vqa",), 4), "r")
    found = rows(tables.read(tables.Overlap, paths.overlap("r")), "group", "vqa")
    ((split, _, other),) = (key for key in found if key[0] == "test")
    assert split == "test" and other in ("train", "val") and found[split, "vqa", other] == (1, 2)


def test_the_order_of_the_run_changes_nothing(work: Path) -> None:
    for name in ("one", "two"):
        prepare.run(entry(three_splits(work / name)), name)
    overlap.run(overlap.Params(("one", "two"), 4), "a")
    overlap.run(overlap.Params(("two", "one"), 4), "b")
    assert paths.overlap("a").read_bytes() == paths.overlap("b").read_bytes()


def test_sets_not_prepared_are_left_out(work: Path) -> None:
    overlap.run(overlap.Params(("none",), 4), "empty")
    assert tables.read(tables.Overlap, paths.overlap("empty")).height == 0
    prepare.run(entry(three_splits(work / "one")), "one")
    shutil.copytree(work / "one", work / "two")
    prepare.run(entry(work / "two"), "two")
    overlap.run(overlap.Params(("one", "none", "two"), 4), "r")
    assert set(tables.read(tables.Overlap, paths.overlap("r"))["dataset"]) == {"one", "two"}


def test_a_table_lost_from_a_prepared_set_is_named(work: Path) -> None:
    prepare.run(entry(three_splits(work / "one")), "one")
    paths.samples("one", "val").unlink()
    with pytest.raises(MedbenchError, match=r"results/data/one/val.parquet: the table does not exist"):
        overlap.run(overlap.Params(("one",), 4), "r")


@pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real data")
def test_real_vqa_rad_and_radiology_organ_share_their_images(work: Path) -> None:
    folder = Path(str(REAL))
    prepare.run(entry(folder / "vqa-rad", "hub-vqa", "vqa", allow_group_overlap=True), "vqa-rad")
    prepare.run(entry(folder / "radiology-organ", classes=("head", "chest", "abd")), "radiology-organ")
    overlap.run(overlap.Params(("vqa-rad", "radiology-organ"), 4), "r")
    found = tables.read(tables.Overlap, paths.overlap("r"))
    own = rows(found, "exact-image", "vqa-rad")
    assert own["test", "vqa-rad", "train"][0] + own["test", "vqa-rad", "val"][0] == 202
    assert sum(own["test", "radiology-organ", split][0] for split in paths.SPLITS) == 203  # every image stands in the other set too
