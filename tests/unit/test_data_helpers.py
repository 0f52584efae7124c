"""Small raw data sets on disk for the tests of prepare, layouts and overlap. Holds no test."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from medbench import paths
from medbench.datasets import layouts
from medbench.stages import prepare

CLASSES = ("benign", "malign")
LABELS = ("image", "label", "split", "group")
QUESTIONS = ("image", "question", "answer", "answer_type", "split", "group")
HUB_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
HUB = pa.schema([("image", HUB_IMAGE), ("question", pa.string()), ("answer", pa.string())])


def picture(seed: int, mode: str = "RGB", kind: str = "PNG", **save: Any) -> bytes:
    """An encoded 8x6 image of random pixels."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, format=kind, **save)
    return stream.getvalue()


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([list(columns), *map(list, rows)])


def labelled(folder: Path, rows: Iterable[tuple[str, str, str, str]] | None = None) -> Path:
    """A sound diagnosis table: `rows` of image, label, split, group (default: 8 train, 4 test images), each image of its own pixels."""
    if rows is None:
        rows = [(f"images/{i}.png", CLASSES[i % 2], "train" if i < 8 else "test", f"p{i}") for i in range(12)]
    rows = list(rows)
    for seed, name in enumerate(sorted({row[0] for row in rows})):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(seed))
    write_csv(folder / "labels.csv", LABELS, rows)
    return folder


def asked(folder: Path) -> Path:
    """A sound question table: two questions about each of 6 train and 3 test images."""
    rows = []
    for i in range(9):
        split, name = "train" if i < 6 else "test", f"{i}.png"
        (folder / name).write_bytes(picture(i))
        rows += [
            (name, "Is it red?", "Yes" if i % 2 else "no", "closed", split, f"p{i}"),
            (name, "What is it?", "a cell", "open", split, f"p{i}"),
        ]
    write_csv(folder / "labels.csv", QUESTIONS, rows)
    return folder


def edit(folder: Path, row: int, column: str, value: str) -> None:
    """Change one value of `labels.csv`; `row` as messages count it."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    rows[row - 1][rows[0].index(column)] = value
    write_csv(folder / "labels.csv", rows[0], rows[1:])


def shard(path: Path, rows: Iterable[tuple[int, str | None, str | None, str | None]], schema: pa.Schema = HUB, mode: str = "RGB") -> None:
    """A hub shard; a row is the seed of its image, the image's path, question, answer."""
    kind = "JPEG" if mode == "CMYK" else "PNG"
    values = [
        {"image": {"bytes": picture(seed, mode, kind), "path": name}, "question": question, "answer": answer}
        for seed, name, question, answer in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(values, schema), path)


def hub(folder: Path) -> Path:
    """A sound hub data set: 5 train images with two questions each, 2 test images, one of them train's."""
    train = [(i // 2, f"{i // 2}.png", "is it red?", "yes" if i % 2 else "two cells") for i in range(10)]
    shard(folder / "data" / "train-00000-of-00002.parquet", train[:6])
    shard(folder / "data" / "train-00001-of-00002.parquet", train[6:])
    shard(folder / "data" / "test-00000-of-00001.parquet", [(0, "0.png", "is it blue?", "No."), (9, "9.png", "what is it?", "yes, a cell")])
    return folder


def entry(
    folder: Path | None, layout: str = "table", task: str = "diagnosis", options: Mapping[str, Any] | None = None, **changes: Any
) -> prepare.Params:
    """Parameters of `prepare` for a raw folder."""
    checked = layouts.read_options(layout, options or {}, "toy").model_dump(mode="json")
    classes = CLASSES if task == "diagnosis" else ()
    plain = prepare.Params(task, layout, None if folder is None else str(folder), checked, classes, 0.25, 0.0, False, 0)
    return plain._replace(**changes)


def card(dataset: str = "toy") -> dict[str, Any]:
    """A prepared set's card."""
    found: dict[str, Any] = json.loads(paths.card(dataset).read_text(encoding="utf-8"))
    return found


def samples(split: str, dataset: str = "toy") -> pl.DataFrame:
    """A prepared set's samples."""
    return pl.read_parquet(paths.samples(dataset, split))
