"""CLIP, PubMedCLIP, PLIP and every other checkpoint of `CLIPModel` (MODELS.md, section 1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import CLIPModel

from medbench.models import hub
from medbench.models.base import Contrastive, ImageOutput


class Clip(Contrastive):
    """Features are the projected embedding, as in the study."""

    lora_targets = r"encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"

    def __init__(self, model: Any, images: hub.HubPixels, tokenizer: Any) -> None:
        self.model, self._images, self._tokenizer = model, images, tokenizer
        self.image_processor = images.name
        self.scale, self.bias = float(model.logit_scale.detach().float().exp()), 0.0

    @property
    def vision(self) -> nn.Module:
        """The vision transformer, without the projection."""
        tower: nn.Module = self.model.vision_model
        return tower

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Shortest edge bicubic, centre crop."""
        return self._images.pixels(image)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """OpenAI's mean and deviation, or the checkpoint's."""
        return self._images.normalise(pixels)

    def encode_images(self, pixels: torch.Tensor) -> ImageOutput:
        """One query: features and embeddings are the same vector."""
        projected = self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)).pooler_output.float()
        return ImageOutput(projected, projected[:, None])

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Padded to the longest: the attention mask takes care of it."""
        length = self.model.config.text_config.max_position_embeddings
        batch = hub.tokens(self._tokenizer, list(texts), length, padding=True).to(self.device)
        with torch.inference_mode():
            encoded: torch.Tensor = self.model.get_text_features(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).pooler_output.float()
        return encoded


def load(checkpoint: str, revision: str | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Clip:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does."""
    path = hub.folder(checkpoint, revision)
    model = hub.load_model(CLIPModel, path, "clip", hub.placement(device, dtype))
    return Clip(model, hub.HubPixels(path), hub.load_tokenizer(path))
