"""MedCLIP with the normalisation of the study's code (rescaled by 0.58628, mean 0, CLIP's deviation): to reproduce its figures only."""

import torch

from medbench.models.contrastive import medclip

CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class MedClipPublished(medclip.MedClip):
    """Everything else as in `medclip`."""

    image_processor = "medclip: as in the study's code"

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Mean and deviation mixed up with the rescaling factor, as published."""
        return pixels.float() * self.mean / torch.tensor(CLIP_DEVIATION, device=pixels.device).view(-1, 1, 1)


def load(
    checkpoint: str, revision: str | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> MedClipPublished:
    """As `medclip.load`."""
    loaded = medclip.load(checkpoint, revision, device, dtype)
    return MedClipPublished(loaded.model, loaded._tokenizer)
