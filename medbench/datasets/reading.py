"""What layouts of official files share: where the root lies, rows of CSV and Parquet, arrays of an npz, the published split by sex."""

import csv
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from medbench.datasets.layouts import Embedded, Source, embed
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
                if not values:
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
        if "field limit" in str(error):
            found = f"has a cell of more than {limits.MAX_CELL_CHARACTERS} characters"
            raise source.error(f"{name} after row {number}", found, "close the quote that is open there, or remove the column") from None
        raise source.error(f"{name} after row {number}", f"is no CSV ({error})", "fix the quotes there") from None


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
