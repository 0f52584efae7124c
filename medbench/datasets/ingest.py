"""Raw images into the table `images`: each decoded once as a check, converted only where a decoder would go wrong.

Threads do the work: hashing, JPEG and PNG decoding run outside Python's lock. Order is that of the input.
"""

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Condition
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from PIL import Image, ImageChops, ImageOps, TiffImagePlugin, UnidentifiedImageError

from medbench.datasets import display
from medbench.datasets.layouts import Embedded
from medbench.errors import Extra
from medbench.jobs import files, imagefile, limits

KEPT_FORMATS = ("JPEG", "PNG")
KEPT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
HASH_SIDE = 32
_DCT = np.cos(np.pi / (2 * HASH_SIDE) * np.outer(np.arange(8), 2 * np.arange(HASH_SIDE) + 1))  # type II, the lowest 8 frequencies
TASK = 8  # images that a thread takes at once
STRIP = 2**16  # pixels of a large image that are copied at a time: few enough that memory is used again, not fetched anew from the system
GROUP_IMAGES, GROUP_BYTES = 256, 32 * 2**20  # a row group ends at whichever comes first
SHOWN = display.Wanted()
DIGESTS = {"image_id": pl.String, "pixel_digest": pl.String, "perceptual_hash": pl.UInt64}
TABLE = pa.schema(
    {
        "image_id": pa.string(),
        "pixel_digest": pa.string(),
        "perceptual_hash": pa.uint64(),
        "image": pa.binary(),
        "evaluated": pa.bool_(),
    }
)


A = TypeVar("A")


class Fault(NamedTuple):
    """Why an image cannot be used."""

    reason: str  # missing-image | unreadable-image | broken-image | huge-image | dicom-image: what the card counts under
    detail: str


class Checked(NamedTuple):
    """An image that decodes. `change`: why its bytes are not the original ones, or None where they are."""

    image_id: str
    pixel_digest: str
    perceptual_hash: int
    image: bytes
    change: str | None
    levels: display.Levels | None = None  # of an image that waits for the scale of its data set: `image` is the original, undigested


def key_of(image: Path | Embedded) -> str:
    """What identifies an image before it is read: its path, or the digest of its bytes."""
    return image.digest if isinstance(image, Embedded) else str(image)


def check_all(
    images: Iterable[tuple[str, Path | Embedded]], threads: int, wanted: display.Wanted = SHOWN
) -> Iterator[tuple[str, Checked | Fault]]:
    """`check` of each image of a data set under its key, in order, by `threads` threads; only a few images a thread are in memory.

    Those of more than 8 bits wait for `settled`, when all are known: they come with their `levels` and without digests.
    """
    waiting: deque[tuple[tuple[str, ...], Future[list[Checked | Fault]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batched(images, TASK):
            keys = tuple(key for key, _ in batch)
            waiting.append((keys, pool.submit(lambda batch: [check(image, *wanted, alone=False) for _, image in batch], batch)))
            if len(waiting) > 2 * threads:
                keys, done = waiting.popleft()
                yield from zip(keys, done.result(), strict=True)
        for keys, done in waiting:
            yield from zip(keys, done.result(), strict=True)


def batched(items: Iterable[A], size: int) -> Iterator[tuple[A, ...]]:
    """Tuples of `size` items, the last one shorter (itertools has it from Python 3.12 on)."""
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


def check(
    image: Path | Embedded, max_side: int | None = None, background: str = "white", bits: int | None = None, alone: bool = True
) -> Checked | Fault:
    """Read, digest and decode one image; what it takes to store it, or why it cannot be used.

    `max_side`, `background`, `bits`: `display.Wanted`. `alone`: it belongs to no data set whose scale it shares.
    """
    if isinstance(image, Path):
        if kind := files.irregular(image):
            return Fault("unreadable-image", f"the image is {kind}, not a file")
        try:
            size = image.stat().st_size
            data = image.read_bytes() if size <= limits.MAX_IMAGE_BYTES else b""
        except (FileNotFoundError, NotADirectoryError):
            return Fault("missing-image", "the image file does not exist")
        except OSError as error:
            return Fault("unreadable-image", f"the image file cannot be read ({error.strerror})")
        image_id = hashlib.sha256(data).hexdigest()
    else:
        (image_id, data), size = image, len(image.data)
    if size > limits.MAX_IMAGE_BYTES:
        return Fault("huge-image", f"the image has {size} bytes, at most {limits.MAX_IMAGE_BYTES} are read")
    wanted = display.Wanted(max_side, background, bits)
    try:
        try:
            return _standard(image_id, data, wanted, alone)
        except Exception:
            if (plain := imagefile.without_comments(data)) == data:
                raise
            return _standard(image_id, plain, wanted, alone, notes=["comments left out"])
    except Image.DecompressionBombError as error:
        return Fault("huge-image", f"the image is too large to be decoded safely ({' '.join(str(error).split())})")
    except Extra as error:
        return Fault("dicom-image", str(error))
    except UnidentifiedImageError as error:
        if data.startswith(tuple(TiffImagePlugin.PREFIXES)):
            is_cut = imagefile.is_cut_tiff(data)
            detail = "that is cut off: it has no directory" if is_cut else "with pixels of a kind that is not read: save it as PNG"
            return Fault("broken-image", f"the file is a TIFF {detail}")
        return Fault("broken-image", str(error))
    except Exception as error:  # decoders raise whatever they like: OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        return Fault("broken-image", f"the image does not decode ({type(error).__name__}: {' '.join(str(error).split())})")


def _standard(
    image_id: str, data: bytes, wanted: display.Wanted, alone: bool, levels: display.Levels | None = None, notes: Sequence[str] = ()
) -> Checked:
    """The image as it is stored: its own bytes wherever a decoder needs no change and it is not larger than asked for.

    `levels`: of the data set, once they are known; `notes`: what became of it before.
    """
    with _opened(data) as (image, seen):
        layout, turned, side = imagefile.layout(image), _orientation(image), wanted.max_side
        deep = display.deep(image, data, layout, wanted)
        flat = None if deep else display.opaque(image, layout, wanted.background)
        is_clear = flat is not None or (deep is not None and deep.is_clear)
        changes = [
            *([f"format {image.format}"] if image.format not in KEPT_FORMATS else []),
            *notes,
            *seen,
            *([f"mode {image.mode}"] if image.mode not in KEPT_MODES else ["more than 8 bits a channel"] if deep else []),
            *([f"transparency on {wanted.background}"] if is_clear else []),
            *(["EXIF rotation"] if turned != 1 else []),
            *([f"larger than {side} pixels"] if side and max(image.size) > side else []),
        ]
        if not changes:
            return Checked(image_id, *_digests(image), data, None)
        change = ", ".join(changes)
        if deep:
            if not (alone or levels or deep.is_scaled):
                return Checked(image_id, "", 0, data, change, deep.levels)
            flat = display.eight_bit(deep, deep.levels if deep.is_scaled or levels is None else levels, wanted)
        image.load()
        shown = _upright(display.plain(flat or image), _orientation(image))
        if side and max(shown.size) > side:
            shown.thumbnail((side, side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        shown.save(stream, format="PNG", icc_profile=None)  # nobody applies it, and a large one keeps Pillow from reading the PNG
        return Checked(image_id, *_digests(shown), stream.getvalue(), change)


def _orientation(image: Image.Image) -> int:
    """What EXIF says, 1 where nothing is to be turned. EXIF that cannot be read harms no pixel."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # as decoders raise: SyntaxError, struct.error, ...
        return 1
    return found if found in range(2, 9) else 1


def _upright(image: Image.Image, turned: int) -> Image.Image:
    """Turned as an orientation of EXIF says."""
    if turned == 1:
        return image
    image.getexif()[ORIENTATION] = turned
    return ImageOps.exif_transpose(image)


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[Image.Image, list[str]]]:
    """Any image of one picture, once there is room for its pixels, with what became of them; DICOM by way of its own reader."""
    if data[128:132] == b"DICM":
        from medbench.datasets import dicom

        found = dicom.opened(data)
        with _ROOM.taken(found.Columns * found.Rows):
            yield dicom.decoded(found)
        return
    with imagefile.corrected(data) as image:
        if several := imagefile.several(image, data):
            raise ValueError(f"{several}: export the one that is meant")
        if image.format in ("JPEG", "MPO") and not imagefile.has_end(data):
            raise OSError("image file is truncated: no end (FF D9) follows its pixels")
        with _ROOM.taken(image.width * image.height):
            yield image, []


class _Room:
    """What all threads together may decode at a time [pixels]: memory does not grow with their number."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._changed = Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until so many, or all, are free."""
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


_ROOM = _Room(limits.MAX_PIXELS)


def _digests(image: Image.Image) -> tuple[str, int]:
    """XXH3 of size and pixels as `images.decode` shows them (equal for one picture in two encodings), and the perceptual hash.

    A picture of greys alone counts as grey, whatever its mode. The digest finds equal pictures; nobody is kept from making two by hand.
    """
    shown = image if image.mode in ("L", "RGB") else image.convert("RGB")
    if shown.mode == "RGB" and _is_grey(shown):
        shown = shown.getchannel(0)
    digest = xxhash.xxh3_128(f"{shown.width}x{shown.height}x{len(shown.mode)}\n".encode())
    for pixels in _pixels(shown):
        digest.update(pixels)
    return digest.hexdigest(), perceptual_hash(shown)


def _is_grey(image: Image.Image) -> bool:
    """Of an RGB image; most colour images show it in their first row."""
    rows = [slice(0, 1), *display.strips(image.height, image.width, STRIP)]
    return all(_has_equal_channels(image.crop((0, part.start, image.width, min(part.stop, image.height)))) for part in rows)


def _has_equal_channels(image: Image.Image) -> bool:
    """Of an RGB image, by Pillow: numpy takes five times as long for values that lie three apart, twice as long as decoding."""
    red, green, blue = image.split()
    return not (ImageChops.difference(red, green).getbbox() or ImageChops.difference(green, blue).getbbox())


def _pixels(image: Image.Image) -> Iterator[Any]:
    """The bytes of all pixels, some rows at a time; those of a grey image are not copied, where it lies in one piece."""
    if image.mode == "L":
        image.load()
        try:
            yield memoryview(pa.array(image).buffers()[1])
            return
        except ValueError:  # in several pieces
            pass
    for rows in display.strips(image.height, image.width, STRIP):
        yield _rows(image, rows.start, min(rows.stop, image.height))


def _rows(image: Image.Image, top: int, bottom: int) -> bytes:
    whole = (top, bottom) == (0, image.height)
    return (image if whole else image.crop((0, top, image.width, bottom))).tobytes()


def perceptual_hash(image: Image.Image) -> int:
    """pHash, as imagehash has it: signs of the 8x8 low frequencies of a grey version of 32x32. Images that look alike differ in few bits.

    The image is reduced by whole factors first, which takes a fifth of the time and moves few bits. `resize` does both: it knows that the
    last pixel of a reduced row may stand for less than a whole factor, and gives it no more room than that.
    """
    small = image.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS, reducing_gap=1.0)
    small = small if small.mode == "L" else small.convert("L")
    pixels = np.frombuffer(small.tobytes(), np.uint8).reshape(HASH_SIDE, HASH_SIDE).astype(np.float64)
    low = (_DCT @ pixels @ _DCT.T).ravel()
    ordered = np.sort(low)
    return int.from_bytes(np.packbits(low > (ordered[31] + ordered[32]) / 2).tobytes())


class Written(NamedTuple):
    """The table `images` as it lies on the disk."""

    sha256: str
    columns: pl.DataFrame  # all but `image`, in order


def write_table(path: Path, images: Iterable[tuple[Checked, bool]]) -> Written:
    """Write the table `images`: distinct images in order, each with whether val or test use it.

    Equal images give equal bytes, which are digested as they are written. Images are compressed already. Memory holds two row groups.
    """
    return _write(path, (_group(rows) for rows in _row_groups(images)))


def settled(path: Path, levels: display.Levels, wanted: display.Wanted, threads: int) -> Written:
    """Write the table `images` once more, with the images that waited for the `levels` of their data set converted."""

    def converted(row: dict[str, Any]) -> tuple[Checked, bool]:
        image = Checked(row["image_id"], row["pixel_digest"], row["perceptual_hash"], row["image"], None)
        return image if image.pixel_digest else _standard(image.image_id, image.image, wanted, False, levels), row["evaluated"]

    def rows() -> Iterator[tuple[Checked, bool]]:
        with pq.ParquetFile(old) as file, ThreadPoolExecutor(threads) as pool:
            for number in range(file.num_row_groups):
                for batch in file.read_row_group(number).to_batches(TASK):
                    yield from pool.map(converted, batch.to_pylist())

    old = path.with_suffix(".old")
    path.replace(old)
    written = write_table(path, rows())
    old.unlink()
    return written


def mark_evaluated(path: Path, evaluated: list[bool]) -> Written:
    """Write the table `images` once more, with other values of the column `evaluated`, one for every image."""
    old = path.with_suffix(".old")
    path.replace(old)
    with pq.ParquetFile(old) as file:
        flags = pl.Series(evaluated, dtype=pl.Boolean)
        groups = (file.read_row_group(number).combine_chunks() for number in range(file.num_row_groups))
        written = _write(path, _marked(groups, flags))
    old.unlink()
    return written


def _marked(groups: Iterable[pa.Table], flags: pl.Series) -> Iterator[pa.Table]:
    begin = 0
    for group in groups:
        marks = flags.slice(begin, group.num_rows).to_arrow()
        begin += group.num_rows
        yield group.set_column(TABLE.get_field_index("evaluated"), TABLE.field("evaluated"), marks)


class _Digested(io.BufferedWriter):
    """A file with the SHA-256 of what was written into it."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return super().write(data)


def _write(path: Path, groups: Iterable[pa.Table]) -> Written:
    """A thread writes a row group while the next one is made."""
    compression = {name: "none" if name == "image" else "zstd" for name in TABLE.names}
    options = {"compression": compression, "use_dictionary": False, "write_statistics": False}
    columns, waiting = [pl.DataFrame(schema={**DIGESTS, "evaluated": pl.Boolean})], Future[None]()
    waiting.set_result(None)
    with _Digested(path) as file, pq.ParquetWriter(file, TABLE, **options) as writer, ThreadPoolExecutor(1) as thread:
        for group in groups:
            waiting.result()
            waiting = thread.submit(writer.write_table, group)
            columns.append(pl.DataFrame(group.drop_columns("image")))
        waiting.result()
    return Written(file.sha256.hexdigest(), pl.concat(columns, rechunk=True))


def _row_groups(images: Iterable[tuple[Checked, bool]]) -> Iterator[list[tuple[Checked, bool]]]:
    rows, size = [], 0
    for image, evaluated in images:
        rows.append((image, evaluated))
        size += len(image.image)
        if len(rows) == GROUP_IMAGES or size >= GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _group(rows: list[tuple[Checked, bool]]) -> pa.Table:
    """Made by polars and from buffers: handed lists, pyarrow imports pandas."""
    images = [image.image for image, _ in rows]
    ends = np.cumsum([0, *map(len, images)], dtype=np.int32)
    encoded = pa.Array.from_buffers(pa.binary(), len(images), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(images))])
    digests = pl.DataFrame([image[:3] for image, _ in rows], schema=DIGESTS, orient="row").to_arrow()
    flags = pl.Series([evaluated for _, evaluated in rows], dtype=pl.Boolean).to_arrow()
    return pa.table([*digests.columns, encoded, flags], TABLE.names).cast(TABLE)
