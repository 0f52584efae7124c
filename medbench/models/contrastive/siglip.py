"""SigLIP, MedSigLIP and every other checkpoint of `SiglipModel` (MODELS.md, section 2)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import SiglipModel

from medbench.models import hub
from medbench.models.base import Contrastive, ImageOutput


class Siglip(Contrastive):
    """Features are the attention-pooled output of the vision tower, which is the embedding too."""

    # The pooling head's own out_proj is applied as a function: an adapter there would never see a gradient.
    lora_targets = r"encoder\.layers\.\d+\.self_attn\.(q|k|v)_proj"

    def __init__(self, model: Any, images: hub.HubPixels, tokenizer: Any) -> None:
        self.model, self._images, self._tokenizer = model, images, tokenizer
        self.image_processor = images.name
        self.scale, self.bias = float(model.logit_scale.detach().float().exp()), float(model.logit_bias.detach().float())

    @property
    def vision(self) -> nn.Module:
        """The vision transformer with its pooling head."""
        tower: nn.Module = self.model.vision_model
        return tower

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Squashed to a square."""
        return self._images.pixels(image)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Mean and deviation 0.5, or the checkpoint's."""
        return self._images.normalise(pixels)

    def encode_images(self, pixels: torch.Tensor) -> ImageOutput:
        """One query: features and embeddings are the same vector."""
        pooled = self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)).pooler_output.float()
        return ImageOutput(pooled, pooled[:, None])

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Padded to the full length without an attention mask, as the model was trained: other padding changes the logits."""
        length = self.model.config.text_config.max_position_embeddings
        ids = hub.tokens(self._tokenizer, list(texts), length, padding="max_length", max_length=length)["input_ids"].to(self.device)
        with torch.inference_mode():
            encoded: torch.Tensor = self.model.get_text_features(input_ids=ids).pooler_output.float()
        return encoded


def load(checkpoint: str, revision: str | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Siglip:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does."""
    path = hub.folder(checkpoint, revision)
    model = hub.load_model(SiglipModel, path, "siglip", hub.placement(device, dtype))
    return Siglip(model, hub.HubPixels(path), hub.load_tokenizer(path))
