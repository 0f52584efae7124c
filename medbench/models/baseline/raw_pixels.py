"""The baseline without a model: 16x16 RGB pixels, from 0 to 1. What a task is worth by brightness and layout alone."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medbench.jobs.microbatching import Microbatching
from medbench.models.loading import Batch, Vectors

SIZE = 16


class RawPixels:
    """An `Embedder` of 16 * 16 * 3 = 768 features."""

    image_processor = "PIL box filter"

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """RGB image -> bytes [16, 16, 3], each the mean of what it covers."""
        return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.uint8)

    def vectors(self, batches: Iterable[Batch], microbatching: Microbatching) -> Iterator[tuple[Batch, Vectors]]:
        """Features [n, 768]; no embeddings, since pixels know no texts."""
        for batch in batches:
            flat = batch.pixels.reshape(len(batch.pixels), -1)
            yield batch, Vectors((flat / np.float32(255)).astype(np.float32), None)


def load() -> RawPixels:
    """Nothing to load."""
    return RawPixels()
