"""Raw images into the table `images`: each decoded once as a check, converted only where a decoder would go wrong.

Threads do the work: hashing, JPEG and PNG decoding run outside Python's lock. Order is that of the input.
"""

import hashlib
import io
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps, UnidentifiedImageError

from medbench.datasets.base import Embedded

KEPT_FORMATS = ("JPEG", "PNG")
KEPT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
GROUP_IMAGES, GROUP_BYTES = 256, 32 * 2**20  # a row group ends at whichever comes first
SPOOL = pa.schema([("image_id", pa.string()), ("pixel_digest", pa.string()), ("image", pa.binary())])
TABLE = SPOOL.append(pa.field("evaluated", pa.bool_()))


class Fault(NamedTuple):
    """Why an image cannot be used."""

    reason: str  # missing-image | unreadable-image | broken-image: what the card counts under
    detail: str


class Checked(NamedTuple):
    """An image that decodes. `change`: why its bytes are not the original ones, or None where they are."""

    image_id: str
    pixel_digest: str
    image: bytes
    change: str | None


def key_of(image: Path | Embedded) -> str:
    """What identifies an image before it is read: its path, or the digest of its bytes."""
    return image.digest if isinstance(image, Embedded) else str(image)


def check_all(images: Iterable[tuple[str, Path | Embedded]], threads: int) -> Iterator[tuple[str, Checked | Fault]]:
    """`check` of each image under its key, in order, by `threads` threads; only a few images a thread are in memory at a time."""
    waiting: deque[tuple[str, Future[Checked | Fault]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for key, image in images:
            waiting.append((key, pool.submit(check, image)))
            if len(waiting) > 4 * threads:
                first, checked = waiting.popleft()
                yield first, checked.result()
        for key, checked in waiting:
            yield key, checked.result()


def check(image: Path | Embedded) -> Checked | Fault:
    """Read, digest and decode one image; what it takes to store it, or why it cannot be used."""
    if isinstance(image, Path):
        try:
            data = image.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return Fault("missing-image", "the image file does not exist")
        except OSError as error:
            return Fault("unreadable-image", f"the image file cannot be read ({error.strerror})")
        image_id = hashlib.sha256(data).hexdigest()
    else:
        image_id, data = image
    try:
        stored, digest, change = _standard(data)
    except UnidentifiedImageError:
        return Fault("broken-image", f"the file is no image ({len(data)} bytes)")
    except Exception as error:  # decoders raise whatever they like: OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        return Fault("broken-image", f"the image does not decode ({type(error).__name__}: {' '.join(str(error).split())})")
    return Checked(image_id, digest, stored, change)


def _standard(data: bytes) -> tuple[bytes, str, str | None]:
    """The bytes to store, the digest of their pixels, and why the bytes differ from `data` (None: they do not)."""
    with Image.open(io.BytesIO(data)) as image:
        changes = [
            *([f"format {image.format}"] if image.format not in KEPT_FORMATS else []),
            *([f"mode {image.mode}"] if image.mode not in KEPT_MODES else []),
            *(["EXIF rotation"] if image.getexif().get(ORIENTATION, 1) not in (0, 1) else []),
        ]
        if not changes:
            return data, _pixel_digest(image), None
        upright = _eight_bit(ImageOps.exif_transpose(image))
    stream = io.BytesIO()
    upright.save(stream, format="PNG")
    return stream.getvalue(), _pixel_digest(upright), ", ".join(changes)


def _pixel_digest(image: Image.Image) -> str:
    """SHA-256 of size and pixels as `images.decode` shows them, equal for one picture in two encodings; greys count once, not thrice."""
    bands = [band.tobytes() for band in (image if image.mode == "L" else image.convert("RGB")).split()]
    if all(band == bands[0] for band in bands):
        bands = bands[:1]
    digest = hashlib.sha256(f"{image.width}x{image.height}x{len(bands)}\n".encode())
    for band in bands:
        digest.update(band)
    return digest.hexdigest()


def _eight_bit(image: Image.Image) -> Image.Image:
    """L or RGB, 8 bits a channel.

    Integers of more bits are shifted right by as many bits as their maximum exceeds 8 (12 bits in a 16-bit file: by 4); floats and
    negative integers are stretched from their minimum and maximum to 0..255.
    """
    if image.mode in ("1", "L"):
        return image.convert("L")
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("pixels are not finite")
        return Image.fromarray(np.rint((values - low) * (255 / max(high - low, 1e-30))).astype(np.uint8))
    shift = max(int(values.max()).bit_length() - 8, 0)
    return Image.fromarray((values >> shift).astype(np.uint8))


def write_spool(path: Path, images: Iterable[Checked]) -> None:
    """Write distinct images in order, before it is known which of them are evaluated."""
    with _writer(path, SPOOL) as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for image in images:
            rows.append({"image_id": image.image_id, "pixel_digest": image.pixel_digest, "image": image.image})
            size += len(image.image)
            if len(rows) == GROUP_IMAGES or size >= GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, SPOOL))
                rows, size = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, SPOOL))


def write_table(path: Path, spool: Path, evaluated: Collection[str]) -> None:
    """Write the table `images` from its spool, row group by row group. `evaluated`: ids of images that val or test use."""
    with pq.ParquetFile(spool) as file, _writer(path, TABLE) as writer:
        for index in range(file.num_row_groups):
            group = file.read_row_group(index)
            flags = pa.array([image_id.as_py() in evaluated for image_id in group.column("image_id")], pa.bool_())
            writer.write_table(group.append_column("evaluated", flags))


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Equal tables give equal bytes; images are compressed already."""
    compression = {name: "none" if name == "image" else "zstd" for name in schema.names}
    return pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False, write_statistics=False)
