"""Layout `camelyon17`: patches of WILDS Camelyon17 v1.0, `metadata.csv` beside the folder `patches`.

The study's own sample is unpublished. Ours: train from the benchmark's train split (file's split 0 without the centers below), test from
center 2, both stratified by `tumor` and seeded. A group is a slide. Center 1, the benchmark's validation from elsewhere, is not used.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from medbench.datasets.layouts import DiagnosisItem, Excluded, Source, Strict
from medbench.datasets.reading import Row, csv_rows, root

COLUMNS = ("x_coord", "y_coord", "tumor", "patient", "node", "slide", "center", "split")
VAL_CENTER, TEST_CENTER = "1", "2"


class Options(Strict):
    """`train`, `test`: patches drawn for each, or null for all of them; `seed` of the draw."""

    train: int | None = Field(3680, ge=2)
    test: int | None = Field(920, ge=2)
    seed: int = 42


def index_files(options: Options, source: Source) -> list[Path]:
    """The metadata."""
    return [root(source, "metadata.csv", "camelyon17_v1.0") / "metadata.csv"]


def items(options: Options, source: Source) -> Iterator[DiagnosisItem | Excluded]:
    """One item a patch that is drawn, in the order of the metadata."""
    (index,) = index_files(options, source)
    split_of = _draw(options, index, source)
    for number, (place, row) in enumerate(csv_rows(index, COLUMNS, source)):
        if (split := split_of.get(number)) is None:
            yield Excluded("not drawn", place)
            continue
        slide = f"patient_{row['patient']}_node_{row['node']}"
        name = f"patches/{slide}/patch_{slide}_x_{row['x_coord']}_y_{row['y_coord']}.png"
        label = source.classes[int(row["tumor"])]
        yield DiagnosisItem(name, f"slide-{row['slide']}", split, source.inside(name, place, index.parent), place, label)


def _draw(options: Options, index: Path, source: Source) -> dict[int, str]:
    """Position in the metadata -> split."""
    found: dict[str, tuple[list[int], list[str]]] = {"train": ([], []), "test": ([], [])}
    for number, row in enumerate(csv_rows(index, COLUMNS, source)):
        split = _pool(row, source)
        if split:
            found[split][0].append(number)
            found[split][1].append(row.values["tumor"])
    drawn: dict[int, str] = {}
    for split, n in (("train", options.train), ("test", options.test)):
        numbers, labels = found[split]
        if n is not None and n > len(numbers):
            raise source.error("metadata.csv", f"has {len(numbers)} patches for {split}, {n} are wanted", f"lower options.{split}")
        if n is not None and n < len(numbers):
            from sklearn.model_selection import train_test_split

            numbers = train_test_split(numbers, train_size=n, stratify=labels, random_state=options.seed)[0]
        drawn |= dict.fromkeys(numbers, split)
    return drawn


def _pool(row: Row, source: Source) -> str | None:
    """The split that a patch may be drawn for."""
    values = row.values
    if values["tumor"] not in ("0", "1") or values["split"] not in ("0", "1"):
        found = f"tumor {values['tumor']!r}, split {values['split']!r}"
        raise source.error(row.place, found, "both are 0 or 1: take the official metadata.csv of version 1.0")
    if values["center"] == TEST_CENTER:
        return "test"
    return "train" if values["split"] == "0" and values["center"] != VAL_CENTER else None
