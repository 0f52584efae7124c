"""Layout `table`: a CSV (UTF-8, commas) or Parquet file of text columns beside an image folder.

Diagnosis: `image,label,split,group`. Questions: `image,question,answer,answer_type,split,group`. Image paths are relative to
`raw_dir`; further columns are ignored, except `id` (a sample's name; without it diagnosis samples are named by their image,
questions by their image and their number for it). A CSV's header is its row 1, as in a spreadsheet.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medbench.datasets.base import DiagnosisItem, Item, Source, Strict, VqaItem

COLUMNS = {
    "diagnosis": ("image", "label", "split", "group"),
    "vqa": ("image", "question", "answer", "answer_type", "split", "group"),
}
Row = dict[str, str]


class Options(Strict):
    """`index`: the table's file in `raw_dir`."""

    index: str = "labels.csv"


def index_files(options: Options, source: Source) -> list[Path]:
    """The table."""
    path = source.inside(options.index, "option index")
    if not path.is_file():
        raise source.error(options.index, f"does not exist in {source.folder}", "put the table there or set options.index")
    return [path]


def items(options: Options, source: Source) -> Iterator[Item]:
    """One item a row, in the table's order."""
    (path,) = index_files(options, source)
    read, first = (_parquet, 1) if path.suffix == ".parquet" else (_csv, 2)
    asked: Counter[str] = Counter()
    for number, row in enumerate(read(path, options.index, source), start=first):
        place, name = f"{options.index} row {number}", row["image"]
        image = source.inside(name, place)
        if not row["group"]:
            raise source.error(place, "the group is empty", "name the patient, or repeat the image where samples are independent")
        if source.task == "diagnosis":
            yield DiagnosisItem(row.get("id", name), row["group"], row["split"], image, place, row["label"])
            continue
        sample_id = row.get("id", f"{name}#{asked[name]}")
        asked[name] += 1
        yield VqaItem(sample_id, row["group"], row["split"], image, place, row["question"], row["answer"], row["answer_type"])


def _csv(path: Path, name: str, source: Source) -> Iterator[Row]:
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            wanted = _check_columns(header, name, source)
            for number, values in enumerate(reader, start=2):
                if len(values) != len(header):
                    raise source.error(
                        f"{name} row {number}", f"has {len(values)} values for {len(header)} columns", "quote values that hold commas"
                    )
                row = dict(zip(header, values, strict=True))
                yield {column: row[column] for column in wanted}
    except UnicodeDecodeError as error:
        raise source.error(
            f"{name} after row {number}", f"is not UTF-8 (byte 0x{error.object[error.start]:02x})", "save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise source.error(f"{name} after row {number}", f"is no CSV ({error})", "mend the quotes there") from None


def _parquet(path: Path, name: str, source: Source) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            wanted = _check_columns(file.schema_arrow.names, name, source)
            for column in wanted:
                kind = file.schema_arrow.field(column).type
                kind = kind.value_type if pa.types.is_dictionary(kind) else kind
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                    raise source.error(name, f"column {column!r} holds {kind}, not text", "write it as text")
            for batch in file.iter_batches(columns=list(wanted)):
                for row in batch.to_pylist():
                    yield {column: row[column] or "" for column in wanted}
    except (pa.ArrowException, OSError) as error:
        raise source.error(name, f"is no readable Parquet file ({str(error).splitlines()[0]})", "write or download it again") from None


def _check_columns(found: list[str], name: str, source: Source) -> tuple[str, ...]:
    """The columns to read: all that the task needs, and `id` where there is one."""
    wanted = COLUMNS[source.task]
    for column in wanted:
        if column not in found:
            raise source.error(
                name, f"column {column!r} is missing (found {', '.join(found) or 'none'})", f"a {source.task} table has {', '.join(wanted)}"
            )
    twice = next((column for column in found if found.count(column) > 1), None)
    if twice is not None:
        raise source.error(name, f"column {twice!r} stands twice", "keep one of them")
    return (*wanted, "id") if "id" in found else wanted
