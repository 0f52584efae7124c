"""From encoded images to batches of pixels: decoded by worker threads while the device computes, a few batches ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medbench.errors import MedbenchError
from medbench.models.loading import Batch

AHEAD = 3  # batches that are decoded or being decoded; bounds the memory whatever the number of images
Pixels: TypeAlias = NDArray[np.uint8]


class Row(Protocol):
    """One image as the images table holds it."""

    @property
    def image_id(self) -> str: ...
    @property
    def image(self) -> bytes: ...
    @property
    def evaluated(self) -> bool: ...


def prefetch_pixels(batches: Iterable[Sequence[Row]], pixels: Callable[[bytes], Pixels], workers: int) -> Iterator[Batch]:
    """Every batch of rows decoded, in order. `pixels` (encoded bytes -> [...]) runs in `workers` threads.

    Raises MedbenchError naming an image that cannot be decoded.
    """
    source = iter(batches)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Sequence[Row], list[Future[Pixels]]]] = deque()
        while True:
            for rows in islice(source, AHEAD - len(waiting)):
                waiting.append((rows, [pool.submit(pixels, row.image) for row in rows]))
            if not waiting:
                return
            rows, futures = waiting.popleft()
            decoded = np.stack([_result(row, future) for row, future in zip(rows, futures, strict=True)])
            yield Batch([row.image_id for row in rows], [row.evaluated for row in rows], decoded)


def _result(row: Row, future: Future[Pixels]) -> Pixels:
    try:
        return future.result()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what PIL raises for broken or huge files
        raise MedbenchError(
            f"image {row.image_id}", f"cannot be decoded ({error})", "delete the data set's tables and run `prepare` again"
        ) from None
