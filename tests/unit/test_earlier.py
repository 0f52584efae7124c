"""Answers that are kept: a corrected label takes them, any other change asks again."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medbench import paths
from medbench.predict import earlier

CELL = ("toy", "model", "ots")
REPEATED = {"sample_id": "sample_id", "group_id": "group_id", "label": "label"}
TEST = pl.DataFrame({"sample_id": ["a", "b"], "group_id": ["p", "q"], "label": [0, 1], "image_id": ["i", "j"]})


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions of a cell, kept."""
    monkeypatch.chdir(tmp_path)
    table = TEST.select("sample_id", "group_id", pl.col("label").cast(pl.Int16), scores=pl.Series([[0.3, 0.7], [0.6, 0.4]]))
    earlier.keep(CELL, "key", TEST, earlier.Earlier(table, {"weights": {"x": "1"}}))


def test_a_corrected_label_takes_what_was_answered() -> None:
    found = earlier.find(CELL, "key", TEST.with_columns(label=pl.Series([1, 1])), REPEATED)
    assert found is not None and found.facts == {"weights": {"x": "1"}}
    assert found.table["label"].to_list() == [1, 1] and found.table["scores"].to_list() == [[0.3, 0.7], [0.6, 0.4]]
    assert found.table.schema["label"] == pl.Int16


@pytest.mark.parametrize(
    "test",
    [
        TEST,  # nothing has changed: whoever asks again means it
        TEST.with_columns(image_id=pl.Series(["i", "k"])),
        TEST.with_columns(group_id=pl.Series(["p", "r"])),
        TEST.reverse(),
        TEST.head(1),
        TEST.with_columns(question=pl.Series(["x", "y"])),
    ],
)
def test_another_sample_is_asked_again(test: pl.DataFrame) -> None:
    assert earlier.find(CELL, "key", test, REPEATED) is None
    assert test.equals(TEST) or earlier.find(CELL, "key", test.with_columns(label=1), REPEATED) is None


@pytest.mark.parametrize("damage", ["key", "table", "note", "gone"])
def test_what_was_made_otherwise_or_is_damaged_is_not_taken(damage: str) -> None:
    changed: Any = TEST.with_columns(label=1)
    if damage == "table":
        TEST.write_parquet(paths.answers(*CELL))
    if damage == "note":
        paths.answers(*CELL).with_suffix(".json").write_text("[]")
    if damage == "gone":
        paths.answers(*CELL).unlink()
    assert earlier.find(CELL, "other" if damage == "key" else "key", changed, REPEATED) is None
