"""MedCLIP with the pixels of the study's code, to reproduce its figures only: colour, and the mean taken for the rescaling factor."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medbench.models.checkpoint import Checkpoint
from medbench.models.contrastive import medclip

FACTOR = 0.5862785803043838
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class MedClipPublished(medclip.MedClip):
    """Everything else as in `medclip`. The source is model/medclip.py of ubc-tea/MedVLMBench (af52b91)."""

    image_processor = "medclip: as in the study's code"

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """RGB, padded to a square with black, bilinear to 224."""
        return np.asarray(medclip.squared(image, "RGB", 0, Image.Resampling.BILINEAR)).transpose(2, 0, 1)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """0..1 times the factor, mean 0, CLIP's deviation: the largest value is 2.24 (of green)."""
        return pixels.float() / 255 * FACTOR / torch.tensor(CLIP_DEVIATION, device=pixels.device).view(-1, 1, 1)


def load(checkpoint: Checkpoint, device: torch.device | None = None, dtype: torch.dtype | None = None) -> MedClipPublished:
    """As `medclip.load`."""
    loaded = medclip.load(checkpoint, device, dtype)
    return MedClipPublished(loaded.model, loaded._tokenizer)


def skeleton(config: dict[str, object]) -> medclip.Towers:
    """As `medclip.skeleton`."""
    return medclip.skeleton(config)
