"""Reading prepared images: streamed from `data/{dataset}/images.parquet`, decoded as models see them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from medbench.errors import MedbenchError
from medbench.jobs.imagefile import opened


class ImageRow(NamedTuple):
    """One row of the table `images`."""

    image_id: str
    image: bytes  # encoded
    evaluated: bool  # used by val or test


def read_images(path: Path, image_ids: Collection[str] | None = None, batch_size: int = 64) -> Iterator[list[ImageRow]]:
    """Lists of `batch_size` images (the last one shorter) in file order; only those of `image_ids`, where given.

    Batches depend on the table, `image_ids` and `batch_size` alone. Memory holds one row group (at most 256 images).

    Raises MedbenchError when the table is absent or no Parquet.
    """
    wanted = None if image_ids is None else frozenset(image_ids)
    batch: list[ImageRow] = []
    for group in _row_groups(path):
        for image_id, image, evaluated in zip(*(group.column(name) for name in ImageRow._fields), strict=True):
            if wanted is None or image_id.as_py() in wanted:
                batch.append(ImageRow(image_id.as_py(), image.as_py(), evaluated.as_py()))
            if len(batch) == batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def count_images(path: Path) -> int:
    """Rows of the table. Raises MedbenchError when it is absent or no Parquet."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def _row_groups(path: Path) -> Iterator[pa.Table]:
    with _opened(path) as file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index, columns=list(ImageRow._fields))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise MedbenchError(path, "the table does not exist", f"run `snakemake --cores all {path}`") from None
    except (pa.ArrowException, OSError) as error:
        raise MedbenchError(path, f"not a readable table ({str(error).splitlines()[0]})", "delete it and run again") from None


def decode(data: bytes) -> Image.Image:
    """Encoded bytes -> RGB image, uint8 [height, width, 3]: greys repeated, transparency dropped."""
    with opened(data) as image:
        return image.convert("RGB")
