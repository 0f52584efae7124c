"""Contact sheets: what the test images of a data set look like, a row a class (or, for questions, a row open and a row closed)."""

import io
from pathlib import Path
from typing import NamedTuple

import polars as pl
from PIL import Image, ImageDraw, ImageFont

from medbench import paths, tables, tasks
from medbench.datasets.images import decode, read_images
from medbench.errors import visible
from medbench.jobs.imagefile import opened
from medbench.report.params import DatasetFacts

SIDE, GAP, LABEL_WIDTH = 112, 6, 170
PER_ROW, MAX_ROWS = 8, 12


class Tile(NamedTuple):
    """A thumbnail (JPEG bytes, `SIDE` x `SIDE` pixels) and, for questions, what was asked and answered about it."""

    picture: bytes
    question: str
    answer: str


class Row(NamedTuple):
    """A class with its first test images, each of another group where there are enough; `n`: test samples of the class."""

    label: str
    n: int
    tiles: list[Tile]


class Sheet(NamedTuple):
    """The contact sheet of one data set; `left_out`: classes beyond `MAX_ROWS`."""

    dataset: str
    rows: list[Row]
    left_out: int


def collect(dataset: str, facts: DatasetFacts) -> Sheet:
    """Read the thumbnails of a data set: only the few images shown are decoded. Raises MedbenchError for a table that is absent."""
    task = tasks.get(facts.task)
    samples, key, strata = tables.read(task.samples, paths.samples(dataset, "test")), task.stratum, task.strata(facts.classes)
    chosen = {value: _several(samples.filter(pl.col(key) == value)) for value, _ in strata[:MAX_ROWS]}
    pictures = _pictures(dataset, pl.concat(chosen.values())["image_id"].drop_nulls())
    rows = []
    for (value, label), part in zip(strata, chosen.values(), strict=False):
        tiles = [Tile(pictures[row["image_id"]], row.get("question", ""), row.get("answer", "")) for row in part.to_dicts()]
        rows.append(Row(label, samples.filter(pl.col(key) == value).height, tiles))
    return Sheet(dataset, rows, max(len(strata) - MAX_ROWS, 0))


def _several(part: pl.DataFrame) -> pl.DataFrame:
    """The first samples, one a group and image as long as there are any: eight views of one patient would show one patient."""
    once = part.filter(pl.col("image_id").is_null() | pl.col("image_id").is_first_distinct())
    ranked = once.with_columns(again=pl.int_range(pl.len()).over("group_id"), order=pl.int_range(pl.len()))
    return ranked.sort("again", "order").head(PER_ROW).sort("order").drop("again", "order")


def _pictures(dataset: str, wanted: pl.Series) -> dict[str | None, bytes]:
    """Image id -> thumbnail; a grey one for a question without an image."""
    return {None: _square(Image.new("RGB", (SIDE, SIDE), "lightgrey"))} | {
        row.image_id: thumbnail(row.image) for batch in read_images(paths.images(dataset), wanted.to_list()) for row in batch
    }


def thumbnail(data: bytes) -> bytes:
    """An encoded image as a square JPEG: the whole image, on black."""
    return _square(decode(data))


def _square(whole: Image.Image) -> bytes:
    square = Image.new("RGB", (SIDE, SIDE), "black")
    ratio = SIDE / max(whole.size)
    whole = whole.resize((max(1, round(whole.width * ratio)), max(1, round(whole.height * ratio))), Image.Resampling.LANCZOS)
    square.paste(whole, ((SIDE - whole.width) // 2, (SIDE - whole.height) // 2))
    buffer = io.BytesIO()
    square.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write(sheet: Sheet, path: Path) -> None:
    """The sheet as one PNG, labels at the left."""
    columns = max((len(row.tiles) for row in sheet.rows), default=0)
    canvas = Image.new("RGB", (LABEL_WIDTH + columns * (SIDE + GAP) + GAP, len(sheet.rows) * (SIDE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=14)
    for number, row in enumerate(sheet.rows):
        top = GAP + number * (SIDE + GAP)
        pen.multiline_text((GAP, top + SIDE // 2), _wrapped(visible(row.label)), fill="black", font=font, anchor="lm")
        for column, tile in enumerate(row.tiles):
            canvas.paste(opened(tile.picture), (LABEL_WIDTH + column * (SIDE + GAP), top))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, "PNG")


def _wrapped(label: str, width: int = 22, lines: int = 4) -> str:
    """A label in at most `lines` lines of `width` characters."""
    text = [""]
    for word in label.split():
        if text[-1] and len(text[-1]) + 1 + len(word) > width:
            text.append("")
        text[-1] = f"{text[-1]} {word}".strip()
    return "\n".join(line[:width] for line in text[:lines])
