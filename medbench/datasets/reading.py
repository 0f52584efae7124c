"""What layouts share: where the root lies, rows of CSV, spreadsheets and Parquet, arrays of an npz, the published split by sex."""

import codecs
import csv
import datetime
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import ascii_uppercase
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from medbench.datasets.layouts import Embedded, Source, embed
from medbench.errors import MedbenchError
from medbench.jobs import limits

DEPTH = 2
"""How many levels below `raw_dir` a misplaced root is looked for."""
BATCH_ROWS = 64


class Row(NamedTuple):
    """One row of a table: its place for messages, and its values by column (of CSV: text)."""

    place: str
    values: dict[str, Any]


# --- folders


def root(source: Source, marker: str, *names: str) -> Path:
    """The folder that holds `marker`: `raw_dir`, or the official folder (`names`) in it.

    Raises MedbenchError which says where it lies instead: deeper, or above.
    """
    folder = source.folder
    for candidate in (folder, *(folder / name for name in names)):
        if (candidate / marker).exists():
            return candidate
    deeper = [path for depth in range(1, DEPTH + 1) for path in sorted(folder.glob(f"{'*/' * depth}{marker}"))]
    above = [parent for parent in list(folder.parents)[:DEPTH] if (parent / marker).exists()]
    found = [path.parents[len(Path(marker).parts) - 1] for path in deeper] + above
    if found:
        raise source.error(marker, f"is not in raw_dir {folder}, but in {found[0]}", f"set raw_dir to {found[0]}")
    raise source.error(marker, f"does not exist in {folder}", "put the official files there, unpacked")


def first_of(folder: Path, names: Sequence[str], source: Source) -> Path:
    """The first of some files that exists. Raises MedbenchError when none does."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise source.error(names[0], f"does not exist in {folder}", f"put one of {', '.join(names)} there")


# --- tables


def csv_rows(path: Path, wanted: Sequence[str], source: Source, optional: Sequence[str] = (), hint: str = "") -> Iterator[Row]:
    """Rows of a UTF-8 CSV (`.tab`: tabs), one in memory at a time; only `wanted` and those of `optional` that are there.

    The header is row 1, as in a spreadsheet; blank lines count, but are no rows. Raises MedbenchError for a missing column, a short row,
    another encoding, open quotes, a cell of more than `limits.MAX_CELL_CHARACTERS`. `hint`: the remedy for a missing column.
    """
    name, number = path.relative_to(source.folder).as_posix() if path.is_relative_to(source.folder) else path.name, 1
    csv.field_size_limit(limits.MAX_CELL_CHARACTERS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True, delimiter="\t" if path.suffix == ".tab" else ",")
            header = next(reader, [])
            if any("\0" in column for column in header):
                raise source.error(name, "is not UTF-8 (its header holds NULs, as UTF-16 does)", "save it as UTF-8")
            columns = [*wanted, *(column for column in optional if column in header)]
            check_columns(header, columns, name, source, hint or "take the official file: this is another one, or another version")
            places = [header.index(column) for column in columns]
            for number, values in enumerate(reader, start=2):
                if not any(value.strip() for value in values):
                    continue
                if len(values) != len(header):
                    found = f"has {len(values)} values for {len(header)} columns"
                    raise source.error(f"{name} row {number}", found, "quote values that hold commas")
                yield Row(f"{name} row {number}", {column: values[place] for column, place in zip(columns, places, strict=True)})
    except UnicodeDecodeError as error:
        found = f"is not UTF-8 (byte 0x{error.object[error.start]:02x})"
        raise source.error(f"{name} after row {number}", found, "save it as UTF-8") from None
    except OSError as error:
        raise source.error(name, f"cannot be read ({error.strerror})", "make it a file that you may read") from None
    except csv.Error as error:
        raise no_csv(error, f"{name} after row {number}", source) from None


def parquet_rows(path: Path, name: str, source: Source, choose: Callable[[pa.Schema], Sequence[str]]) -> Iterator[Row]:
    """Rows of a Parquet file with the columns (or parts of them, `image.bytes`) that `choose` picks of its schema.

    Only so many are in memory at a time as fit `limits.MAX_BATCH_BYTES` if each held the whole column. Raises MedbenchError for a file that
    cannot be read, and for a column that packs so well that one of its cells may be huge.
    """
    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            columns = list(choose(file.schema_arrow))
            for place in range(file.num_row_groups):
                largest = _largest(file.metadata.row_group(place), columns, name, source)
                size = min(max(limits.MAX_BATCH_BYTES // largest, 1), BATCH_ROWS)
                for batch in file.iter_batches(size, row_groups=[place], columns=columns):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(f"{name} row {number}", values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise source.error(name, f"is no readable Parquet file ({str(error).splitlines()[0]})", "download it again") from None


def parquet_size(path: Path) -> int:
    """Rows of a Parquet file, as its end says; 0 where it cannot be read: whoever reads the rows says so."""
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (pa.ArrowException, OSError):
        return 0


def _largest(group: pq.RowGroupMetaData, columns: Sequence[str], name: str, source: Source) -> int:
    """Bytes of the largest of some columns in a row group, unpacked."""
    chunks = [chunk for chunk in map(group.column, range(group.num_columns)) if chunk.path_in_schema in columns]
    for chunk in chunks:
        if chunk.total_uncompressed_size > max(limits.MAX_COLUMN_BYTES, limits.PACKED_RATIO * chunk.total_compressed_size):
            found = f"column {chunk.path_in_schema} unpacks from {chunk.total_compressed_size} to {chunk.total_uncompressed_size} bytes"
            raise source.error(name, found, "remove its huge cells, or write it in smaller row groups")
    return max([1, *(int(chunk.total_uncompressed_size) for chunk in chunks)])


def check_columns(found: Sequence[str], wanted: Iterable[str], name: str, source: Source, hint: str) -> None:
    """Raise MedbenchError when a wanted column is missing or any stands twice."""
    for column in wanted:
        if column not in found:
            raise source.error(name, f"column {column!r} is missing (found {', '.join(found) or 'none'})", hint)
    if (twice := next((column for column in found if list(found).count(column) > 1), None)) is not None:
        raise source.error(name, f"column {twice!r} stands twice", "keep one of them")


def json_entries(path: Path, source: Source) -> list[dict[str, Any]]:
    """The objects of a JSON file that holds a list of them. Raises MedbenchError for any other file."""
    found = _json(path, source)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise source.error(path.name, "is no list of objects", "take the official file")
    return found


def json_object(path: Path, source: Source) -> dict[str, Any]:
    """A JSON file that holds one object. Raises MedbenchError for any other file."""
    if not isinstance(found := _json(path, source), dict):
        raise source.error(path.name, "is no JSON object", "take the official file")
    return found


def _json(path: Path, source: Source) -> Any:
    try:
        if (size := path.stat().st_size) > limits.MAX_TEXT_BYTES:
            raise source.error(path.name, f"has {size} bytes, at most {limits.MAX_TEXT_BYTES} are read", "take the official file")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise source.error(path.name, f"cannot be read ({error.strerror})", "make it a file that you may read") from None
    except UnicodeDecodeError as error:
        raise source.error(path.name, f"is not UTF-8 (byte 0x{error.object[error.start]:02x})", "download it again") from None
    except (ValueError, RecursionError) as error:  # no JSON, a number of thousands of digits; lists in lists in lists
        raise source.error(path.name, f"is no JSON ({error})", "download it again") from None


def json_lines(path: Path, source: Source) -> Iterator[Row]:
    """The objects of a file of JSON, one a line; blank lines are left out. Raises MedbenchError for any other file."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                if not isinstance(found := json.loads(line), dict):
                    raise source.error(f"{path.name} line {number}", "is no JSON object", "take the official file")
                yield Row(f"{path.name} line {number}", found)
    except OSError as error:
        raise source.error(path.name, f"cannot be read ({error.strerror})", "make it a file that you may read") from None
    except (ValueError, RecursionError) as error:  # of the encoding too
        raise source.error(f"{path.name} after line {max(number - 1, 0)}", f"is no JSON ({error})", "download it again") from None


def field(row: Row, name: str, source: Source) -> Any:
    """A field of a row. Raises MedbenchError where it is missing."""
    if name not in row.values:
        raise source.error(row.place, f"has no field {name!r} (found {', '.join(map(str, row.values))})", "take the official file")
    return row.values[name]


def shown_images(row: Row, columns: Sequence[str], source: Source) -> tuple[Embedded, ...]:
    """The images of a row of a hub's Parquet file, in the order of their columns, those that are null left out."""
    found = [row.values[name] for name in columns]
    return tuple(embed(one["bytes"]) for one in found if one is not None and one.get("bytes"))


# --- tables of people: any delimiter, encoding, spreadsheets


class Sheet(NamedTuple):
    """The cells of a spreadsheet as text, and the names of all its sheets: that of the one that is read first, hidden ones last."""

    rows: list[list[str]]
    names: list[str]
    dates: frozenset[tuple[int, int]]  # row, as it is numbered there, and place in it of the cells that hold a date or a time


def sheet_names(path: Path, name: str, source: Source, remedy: str) -> list[str]:
    """Names of the sheets of an xlsx file, hidden ones last; no cell is read. Raises MedbenchError as `sheet_cells`."""
    with _workbook(path, name, source, remedy) as (_, names):
        return names


def sheet_cells(path: Path, name: str, source: Source, remedy: str, sheet: str | None = None) -> Sheet:
    """A sheet of an xlsx file, by default the first that is not hidden.

    Raises MedbenchError; `remedy`: for a file that is no such spreadsheet.
    """
    rows, dates = list[list[str]](), set[tuple[int, int]]()
    with _workbook(path, name, source, remedy) as (book, names):
        if sheet is not None and sheet not in names:
            raise source.error(name, f"has no sheet {sheet!r}", f"choose from {', '.join(names)}")
        chosen = book[sheet or names[0]]
        for number, row in enumerate(chosen.iter_rows(max_row=limits.MAX_SHEET_ROWS + 1, max_col=limits.MAX_SHEET_COLUMNS), start=1):
            rows.append([_shown(cell) for cell in row])
            dates.update((number, place) for place, cell in enumerate(row) if isinstance(cell.value, _DATES))
    if len(rows) > limits.MAX_SHEET_ROWS:
        raise source.error(name, f"has more than {limits.MAX_SHEET_ROWS} rows", remedy)
    return Sheet([row or [""] for row in rows], sorted(names, key=(sheet or names[0]).__ne__), frozenset(dates))


@contextmanager
def _workbook(path: Path, name: str, source: Source, remedy: str) -> Iterator[tuple[Any, list[str]]]:
    """An open workbook with the names of its sheets, hidden ones last; what cannot be read is a MedbenchError."""
    import openpyxl

    if not path.is_file():
        raise source.error(name, f"does not exist in {source.folder}", "put the official files there, unpacked")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > limits.MAX_TEXT_BYTES:
            raise source.error(name, f"unpacks to {size} bytes, at most {limits.MAX_TEXT_BYTES} are read", remedy)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        yield book, [one.title for one in sorted(book.worksheets, key=lambda one: one.sheet_state != "visible")]
        book.close()
    except MedbenchError:
        raise
    except Exception as error:  # openpyxl raises whatever it meets: KeyError, TypeError, BadZipFile, zlib.error, ParseError, ...
        found = f"is no readable spreadsheet ({' '.join(str(error).split())[:120]})"
        raise source.error(name, found, "download it again, or save it again as xlsx") from None


_DATES = (datetime.date, datetime.time, datetime.timedelta)


def _shown(cell: Any) -> str:
    """A cell as its sheet shows it, as far as that decides what a number is: 7 as 007, 0.45 as 45%."""
    value = cell.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if (format := re.fullmatch(r"0{2,}", cell.number_format)) and value >= 0 and value == int(value):
            return str(int(value)).zfill(len(format[0]))
        if format := re.fullmatch(r"0(?:\.(0+))?%", cell.number_format):
            return f"{value:.{len(format[1] or '')}%}"
    return as_text(value)


def as_text(cell: Any) -> str:
    """A cell of a spreadsheet or of Parquet as a person reads it: 1.0 is 1, nothing is empty."""
    if cell is None or cell != cell:
        return ""
    if cell is True or cell is False:
        return str(cell).lower()
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


class Records(NamedTuple):
    """A table as it lies in a file: its header, its rows with their number in a spreadsheet (the header has 1), how it was read."""

    header: list[str]
    rows: Iterator[tuple[int, list[str]]]
    notes: list[str]
    dates: frozenset[tuple[int, int]] = frozenset()  # as of a `Sheet`


DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
WESTERN = "cp1252"


def records(path: Path, name: str, source: Source, wanted: Callable[[Sequence[str]], int], encoding: str | None = None) -> Records:
    """A CSV file of whatever delimiter and encoding, one row in memory at a time; blank rows are left out.

    `wanted`: how many columns of a header are looked for: the delimiter is that which finds most of them, then the most columns.
    Raises MedbenchError for an encoding that is not found, open quotes, a cell of more than `limits.MAX_CELL_CHARACTERS`.
    """
    csv.field_size_limit(limits.MAX_CELL_CHARACTERS)
    try:
        found = encoding or _encoding(path, name, source)
        with path.open(encoding=found, newline="") as stream:
            first = next((line for line in iter(lambda: stream.readline(limits.MAX_VALUE_CHARACTERS), "") if line.strip("\ufeff \r\n")), "")
    except (UnicodeDecodeError, UnicodeError, LookupError) as error:
        raise source.error(name, f"is not {encoding} ({str(error)[:120]})", "set options.encoding to that of the file") from None
    except OSError as error:
        raise source.error(name, f"cannot be read ({error.strerror})", "make it a file that you may read") from None
    said = re.fullmatch("sep=(.)", first.strip("\ufeff\r\n"))  # Excel's own first line
    delimiter = said[1] if said else max(DELIMITERS, key=lambda one: _columns(first, one, wanted))
    rows = _rows(path, name, source, found, delimiter)
    _, header = next(rows, (1, []))
    if said:
        _, header = next(rows, (2, []))
    notes = [f"{name}: its columns are parted by {DELIMITERS.get(delimiter, delimiter)}"] if delimiter != "," else []
    notes += [f"{name}: its encoding is {found}"] if found not in ("utf-8-sig", encoding) else []
    return Records(header, rows, notes)


OBJECTS = (".json", ".jsonl", ".ndjson")
"""Endings of files whose rows are objects of JSON: a list of them, or one a line."""


def table_records(
    path: Path,
    name: str,
    source: Source,
    wanted: Callable[[Sequence[str]], int],
    remedy: str,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Records:
    """A CSV file, a sheet of an xlsx file or objects of JSON, by the ending. `remedy`: as of `sheet_cells`; the others as of `records`."""
    kind = path.suffix.lower()
    if kind == ".xlsx":
        return _sheet_records(name, sheet_cells(path, name, source, remedy, sheet))
    return _object_records(path, source) if kind in OBJECTS else records(path, name, source, wanted, encoding)


def _sheet_records(name: str, sheet: Sheet) -> Records:
    rows = [(number, row) for number, row in enumerate(sheet.rows, start=1) if any(row)]
    others = f"{name}: sheet {sheet.names[0]!r} is read, others are not: {', '.join(sheet.names[1:])}"
    return Records(rows[0][1] if rows else [], iter(rows[1:]), [others] if len(sheet.names) > 1 else [], sheet.dates)


def _object_records(path: Path, source: Source) -> Records:
    """Objects of JSON as a table, whose columns are all fields that any of them has; its rows are numbered from 1.

    A field that lists values, such as options, has a column for each: `options A`, `options B`. Raises MedbenchError for another file.
    """
    with _as_objects():
        listed = json_entries(path, source) if path.suffix.lower() == ".json" else None

    def each() -> Iterator[dict[str, str]]:
        with _as_objects():
            yield from map(_cells, listed if listed is not None else (row.values for row in json_lines(path, source)))

    header = list(dict.fromkeys(key for values in each() for key in values))
    return Records(header, ((number, [values.get(key, "") for key in header]) for number, values in enumerate(each(), start=1)), [])


@contextmanager
def _as_objects() -> Iterator[None]:
    """The remedy for a file of a person instead of that for an official one."""
    try:
        yield
    except MedbenchError as error:
        raise MedbenchError(error.where, error.found, "write a list of objects (.json), or one object a line (.jsonl)") from None


def _cells(values: Mapping[str, Any]) -> dict[str, str]:
    """Fields as text. A list of one value is that value; what is listed deeper, or is more than the letters, has no cell."""
    cells = dict[str, str]()
    for key, value in values.items():
        if isinstance(value, list) and len(value) == 1:
            [value] = value
        if isinstance(value, list | dict) and len(value) > len(ascii_uppercase):
            continue
        if isinstance(value, list):
            value = dict(zip(ascii_uppercase, value, strict=False))
        inner = {f"{key} {mark}": one for mark, one in value.items()} if isinstance(value, dict) else {key: value}
        cells |= {name: as_text(one) for name, one in inner.items() if not isinstance(one, list | dict)}
    return cells


def _columns(line: str, delimiter: str, wanted: Callable[[Sequence[str]], int]) -> tuple[int, int]:
    try:
        header = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return 0, 0
    return wanted(header), len(header)


def _rows(path: Path, name: str, source: Source, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    number = 0
    try:
        with path.open(encoding=encoding, newline="") as stream:
            for number, values in enumerate(csv.reader(stream, strict=True, delimiter=delimiter), start=1):
                if any(value.strip() for value in values):
                    yield number, values
    except UnicodeDecodeError as error:
        found = f"is not {encoding.upper().removesuffix('-SIG')} (byte 0x{error.object[error.start]:02x})"
        raise source.error(f"{name} after row {number}", found, "set options.encoding to that of the file") from None
    except OSError as error:
        raise source.error(name, f"cannot be read ({error.strerror})", "make it a file that you may read") from None
    except csv.Error as error:
        raise no_csv(error, f"{name} after row {number}", source) from None


def no_csv(error: csv.Error, place: str, source: Source) -> MedbenchError:
    """What is wrong with a file that Python's reader gives up on."""
    if "field limit" in str(error):
        found = f"has a cell of more than {limits.MAX_CELL_CHARACTERS} characters"
        return source.error(place, found, "close the quote that is open there, or remove the column")
    return source.error(place, f"is no CSV ({error})", "fix the quotes there")


def _encoding(path: Path, name: str, source: Source) -> str:
    """By the byte order mark, by the NULs of UTF-16, UTF-8 where all of it is, or the Western code page where nothing speaks against it."""
    with path.open("rb") as stream:
        begin = stream.read(2**16)
        for mark, encoding in _MARKS.items():
            if begin.startswith(mark):
                return encoding
        for place, encoding in enumerate(("utf-16-be", "utf-16-le")):
            if begin[place::2].count(0) > len(begin) / 4:
                return encoding
        decoder, stray = codecs.getincrementaldecoder("utf-8")(), b""
        stream.seek(0)
        for block in iter(lambda: stream.read(2**20), b""):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                stray = error.object[error.start : error.start + 1]
                break
        stream.seek(0)
        text = stream.read(2**24) if stray else b""
    if not stray:
        return "utf-8-sig"
    high = re.findall(rb"[\x80-\xff]+", text)
    # Western texts have single letters beyond ASCII; other code pages, and Chinese or Japanese encodings, have them in a row.
    if high and sum(len(run) == 1 for run in high) >= 0.9 * len(high) and not set(b"".join(high)) & _UNDEFINED:
        if strange := _NOT_WESTERN.search(text):
            word = _word(text, strange.start())
            found = f"is not UTF-8, and read as Western ({WESTERN}) it holds {word!r}: it seems to have another code page"
            remedy = f"save it as UTF-8, or set options.encoding to its own (cp1250, cp1254, cp850, ...; {WESTERN} where this is right)"
            raise source.error(name, found, remedy)
        return WESTERN
    found = f"is neither UTF-8 (byte 0x{stray.hex()}) nor anything else that can be told by its bytes"
    raise source.error(name, found, "save it as UTF-8, or set options.encoding to its own (cp1250, cp1251, gb18030, shift-jis, ...)")


def _word(text: bytes, place: int) -> str:
    """The word at a place as the Western code page shows it."""
    before, after = text[max(place - 15, 0) : place], text[place : place + 15]
    return (re.split(rb"[\s,;|\"]", before)[-1] + re.split(rb"[\s,;|\"]", after)[0]).decode(WESTERN, "replace")


_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_UNDEFINED = {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # in the Western code page
_LETTERS = rb"A-Za-z\x8a\x8c\x8e\x9a\x9c\x9e\x9f\xc0-\xd6\xd8-\xf6\xf8-\xff"
_SYMBOLS = rb"\x80\x82-\x84\x86-\x89\x8b\x93\x94\x98\x9b\xa1-\xa8\xaa\xac\xaf\xb3\xb6\xb8-\xba\xbc-\xbf"
_SLAVIC_OR_TURKISH = rb"\x8a\x8e\x9a\x9e\x9f\xd0\xdd\xde\xf0\xfd\xfe"  # S and Z with a caron and others that a Western text hardly has
_NOT_WESTERN = re.compile(rb"(?<=[%b])[%b](?=[%b])|[%b]" % (_LETTERS, _SYMBOLS, _LETTERS, _SLAVIC_OR_TURKISH))
"""What the Western code page shows amid words where another one has letters."""


# --- arrays


def png(array: NDArray[Any]) -> Embedded:
    """An image of bytes [h, w] or [h, w, 3], losslessly encoded."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8)).save(stream, format="PNG", compress_level=1)
    return embed(stream.getvalue())


def npz_array(path: Path, key: str, place: str, source: Source) -> NDArray[Any]:
    """One numeric array of an npz file; nothing in it is ever unpickled. Raises MedbenchError naming the file and what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open(f"{key}.npy") as stream:
                shape, _, dtype = _header(stream)
            if (size := math.prod(shape) * dtype.itemsize) > limits.MAX_ARRAY_BYTES:
                found = f"{path.name}: array {key} of shape {shape} has {size} bytes, at most {limits.MAX_ARRAY_BYTES} are read"
                raise source.error(place, found, "take the official file")
            with archive.open(f"{key}.npy") as stream:
                array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
                return array
    except KeyError:
        raise source.error(place, f"{path.name} holds no array {key!r}", "take the official file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        found = f"{path.name} is no readable npz file ({' '.join(str(error).split())[:120]})"
        raise source.error(place, found, "download it again") from None


def npz_images(path: Path, key: str, source: Source) -> Iterator[NDArray[np.uint8]]:
    """The images of one array [n, h, w] or [n, h, w, 3] of bytes, one in memory at a time, however large the file.

    Raises MedbenchError for a file that is cut off, or an array of another form.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            shape, fortran, dtype = _header(stream)
            if dtype != np.uint8 or fortran or len(shape) not in (3, 4):
                raise source.error(
                    path.name, f"array {key} is {dtype} of shape {shape}, not bytes [n, h, w(, 3)]", "take the official file"
                )
            if (size := math.prod(shape[1:])) > 3 * limits.MAX_PIXELS:
                raise source.error(path.name, f"array {key} has images of {size} bytes", "take the official file")
            for number in range(shape[0]):
                data = stream.read(size)
                if len(data) < size:
                    raise source.error(path.name, f"array {key} ends at image {number} of {shape[0]}", "download it again")
                yield np.frombuffer(data, np.uint8).reshape(shape[1:])
    except KeyError:
        raise source.error(path.name, f"holds no array {key!r}", "take the official file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise source.error(path.name, f"is no readable npz file ({' '.join(str(error).split())[:120]})", "download it again") from None


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, type of the array that begins here."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(stream)
    return found


# --- splits


def min_k_per_sex(sexes: Mapping[str, str], share: float = 0.2, seed: int = 0) -> set[str]:
    """The test groups of the study's split (DATASETS.md, section 0). `sexes`: group -> sex.

    For each sex its sorted groups; k = the least over the sexes of int(share * groups); k groups of each by scikit-learn's
    `train_test_split`.
    """
    from sklearn.model_selection import train_test_split

    groups: dict[str, list[str]] = {}
    for group in sorted(sexes):
        groups.setdefault(sexes[group], []).append(group)
    k = min((int(share * len(members)) for members in groups.values()), default=0)
    if not k:
        return set()
    chosen = [train_test_split(groups[sex], test_size=k, random_state=seed)[1] for sex in sorted(groups)]
    return {group for members in chosen for group in members}


# --- values

V = TypeVar("V")


def checked(meanings: Mapping[str, V], value: str, column: str, place: str, source: Source) -> V:
    """What a value means, whatever its case. Raises MedbenchError for one that means nothing."""
    if (key := value.strip().lower()) not in meanings:
        raise source.error(place, f"{column} is {value!r}", f"it is one of {', '.join(meanings)}")
    return meanings[key]
