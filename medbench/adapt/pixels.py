"""Pixels of a cell's images, decoded and resized once, kept as bytes: in memory, or in a mapped file where they are many."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medbench.adapt.job import Job, Samples
from medbench.models.loading import Contrastive
from medbench.models.prefetch import prefetch_pixels

IN_MEMORY = 2**30  # bytes; more than this goes to the job's folder of unfinished work


class Labelled(NamedTuple):
    """A split as training reads it: which picture [n], which label [n]."""

    rows: NDArray[np.intp]
    labels: NDArray[np.int64]


class PixelCache(NamedTuple):
    """Distinct images [m, 3, h, w] uint8 and where each lies."""

    pixels: NDArray[np.uint8]
    row: dict[str, int]

    @classmethod
    def build(cls, job: Job, model: Contrastive, batch_size: int) -> "PixelCache":
        """Decode every image of train and val once.

        Raises MedbenchError for an image that is absent or broken.
        """
        wanted = list(dict.fromkeys([*job.train.image_ids, *job.val.image_ids]))
        pixels: NDArray[np.uint8] | None = None
        row: dict[str, int] = {}
        for batch in prefetch_pixels(job.images(wanted, batch_size), lambda data: model.pixels(job.decode(data)), job.workers):
            if pixels is None:
                pixels = _allocate((len(wanted), *batch.pixels.shape[1:]), job)
            pixels[len(row) : len(row) + len(batch.pixels)] = batch.pixels
            row |= {image: len(row) + position for position, image in enumerate(batch.image_ids)}
        assert pixels is not None, "train is not empty"
        return cls(pixels, row)

    def split(self, samples: Samples) -> Labelled:
        """Rows and labels of samples, in their order."""
        return Labelled(np.array([self.row[image] for image in samples.image_ids], dtype=np.intp), samples.labels)

    def batches(self, rows: NDArray[np.intp], size: int) -> Iterator[NDArray[np.uint8]]:
        """The pictures of `rows`, `size` at a time."""
        for start in range(0, len(rows), size):
            yield self.pixels[rows[start : start + size]]


def _allocate(shape: Sequence[int], job: Job) -> NDArray[np.uint8]:
    if int(np.prod(shape)) <= IN_MEMORY:
        return np.empty(shape, dtype=np.uint8)
    mapped: NDArray[np.uint8] = np.lib.format.open_memmap(job.work.folder / "pixels.npy", "w+", np.uint8, tuple(shape))
    return mapped
