"""The sheet on which a person reviews questions: written once, and then what is left of it counts."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from medbench.datasets.layouts import Source
from medbench.datasets.reading import records
from medbench.errors import MedbenchError, first
from medbench.judging.questions import NOT_AS_SET, Note, Pair, faults
from medbench.tables.spreadsheet import defused, fused

RIGHT = "right (yes or no)"
ASKED = Pair._fields[:4]
COLUMNS = ("filename", "note", *ASKED, RIGHT)


def sheet(shown: Iterable[tuple[Note, Pair]]) -> str:
    """CSV with a byte order mark, by which spreadsheets know its encoding; what one would run as a formula gets an apostrophe in front."""
    rows = [(note.name, note.text, *made[: len(ASKED)], "") for note, made in shown]
    return "\ufeff" + defused(pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")).write_csv()


def read(path: Path, shown: Mapping[str, tuple[Note, Pair]]) -> dict[str, Pair]:
    """What a person left of the sheet of the notes `shown`: name -> questions as they stand there, without rows that say no.

    Raises MedbenchError with all rows that are of no such note, twice there, neither right nor wrong, or whose questions break a check.
    """
    opened = records(path, path.name, Source("review", "vqa", path.parent, (), 0), lambda header: len({*header} & {*COLUMNS}))
    header = [name.strip() for name in opened.header]
    if lacking := [name for name in ("filename", *ASKED, RIGHT) if header.count(name) != 1]:
        raise MedbenchError(path, f"has not one column {' and one '.join(lacking)}", "keep the columns of the sheet as they were")
    left, wrong, seen = dict[str, Pair](), list[str](), set[str]()
    for number, values in opened.rows:
        row = dict(zip(header, map(fused, values), strict=False))
        name, verdict = row.get("filename", "").strip(), row.get(RIGHT, "").strip().lower()
        if fault := _fault(name, verdict, shown, seen, len(values) > len(header) and any(values[len(header) :])):
            wrong.append(f"row {number}: {fault}")
            continue
        seen.add(name)
        note, before = shown[name]
        made = Pair(*(" ".join(row.get(column, "").split()) for column in ASKED))
        if verdict != "no":
            left[name] = made
            # a person may turn the answer that was set, and what was shown had no fault
            wrong += [f"row {number}: {fault}" for fault in faults(made, note) if made != before and fault != NOT_AS_SET]
    if wrong:
        raise MedbenchError(path, first(wrong, "; "), "correct or delete these rows, and give the same command again")
    return left


def _fault(name: str, verdict: str, shown: Mapping[str, object], seen: set[str], is_long: bool) -> str:
    if is_long:
        return "more values than columns"
    if name not in shown:
        return f"filename {name[:40]!r} was not on the sheet"
    if name in seen:
        return f"filename {name[:40]!r} stands twice"
    return "" if verdict in ("", "yes", "no") else f"{RIGHT} is {verdict[:40]!r}"
