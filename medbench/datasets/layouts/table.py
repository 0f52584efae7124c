"""Layout `table`: a CSV (UTF-8, commas) or Parquet file of text columns beside an image folder.

Diagnosis: `image,label,split,group`. Questions: `image,question,answer,answer_type,split,group`. Image paths are relative to
`raw_dir`; further columns are ignored, except `id` (a sample's name; without it diagnosis samples are named by their image,
questions by their image and their number for it). A CSV's header is its row 1, as in a spreadsheet.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from medbench.datasets.layouts import DiagnosisItem, Item, Source, Strict, VqaItem
from medbench.datasets.reading import Row, check_columns, csv_rows, parquet_rows

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
    if not path.exists():
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
    name, needed = path.relative_to(source.folder).as_posix(), COLUMNS[source.rows]

    def chosen(schema: pa.Schema) -> list[str]:
        check_columns(schema.names, needed, name, source, f"a {source.task} table has {', '.join(needed)}")
        wanted = [*needed, *(["id"] if "id" in schema.names else [])]
        for column in wanted:
            kind = schema.field(column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise source.error(name, f"column {column!r} holds {kind}, not text", "write it as text")
        return wanted

    for place, values in parquet_rows(path, name, source, chosen):
        yield Row(place, {column: value or "" for column, value in values.items()})
