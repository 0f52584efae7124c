"""Layout `table`: a CSV (UTF-8, commas) or Parquet file of text columns beside an image folder.

Diagnosis: `image,label,split,group`. Questions: `image,question,answer,answer_type,split,group`. Image paths are relative to
`raw_dir`; further columns are ignored, except `id` (a sample's name; without it diagnosis samples are named by their image,
questions by their image and their number for it). A CSV's header is its row 1, as in a spreadsheet.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medbench.datasets.layouts import DiagnosisItem, Item, Source, Strict, VqaItem
from medbench.datasets.reading import Row, check_columns, csv_rows

COLUMNS = {
    "labels": ("image", "label", "split", "group"),
    "questions": ("image", "question", "answer", "answer_type", "split", "group"),
}


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
    read = _parquet if path.suffix == ".parquet" else _csv
    asked: Counter[str] = Counter()
    for place, row in read(path, source):
        name = row["image"]
        image = source.inside(name, place)
        if not row["group"]:
            raise source.error(place, "the group is empty", "name the patient, or repeat the image where samples are independent")
        if source.rows == "labels":
            yield DiagnosisItem(row.get("id", name), row["group"], row["split"], image, place, row["label"])
            continue
        sample_id = row.get("id", f"{name}#{asked[name]}")
        asked[name] += 1
        yield VqaItem(sample_id, row["group"], row["split"], image, place, row["question"], row["answer"], row["answer_type"])


def _csv(path: Path, source: Source) -> Iterator[Row]:
    wanted = COLUMNS[source.rows]
    return csv_rows(path, wanted, source, optional=("id",), hint=f"a {source.task} table has {', '.join(wanted)}")


def _parquet(path: Path, source: Source) -> Iterator[Row]:
    name, number, needed = path.relative_to(source.folder).as_posix(), 0, COLUMNS[source.rows]
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow.names
            check_columns(found, needed, name, source, f"a {source.task} table has {', '.join(needed)}")
            wanted = [*needed, *(["id"] if "id" in found else [])]
            for column in wanted:
                kind = file.schema_arrow.field(column).type
                kind = kind.value_type if pa.types.is_dictionary(kind) else kind
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                    raise source.error(name, f"column {column!r} holds {kind}, not text", "write it as text")
            for batch in file.iter_batches(columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield Row(f"{name} row {number}", {column: row[column] or "" for column in wanted})
    except (pa.ArrowException, OSError) as error:
        raise source.error(name, f"is no readable Parquet file ({str(error).splitlines()[0]})", "write or download it again") from None
