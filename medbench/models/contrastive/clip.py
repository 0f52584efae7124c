"""CLIP, PubMedCLIP, PLIP and every other checkpoint of `CLIPModel` (MODELS.md, section 1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.loading import ImageOutput


class Clip(hub.HubContrastive):
    """Features are the projected embedding, as in the study."""

    lora_targets = r"encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"

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


def load(checkpoint: Checkpoint, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Clip:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does."""
    path = checkpoint.folder()
    model = hub.load_model(CLIPModel, path, "clip", hub.placement(device, dtype))
    tokenizer = hub.load_tokenizer(path, model.config.text_config.vocab_size)
    return Clip(model, hub.HubPixels(path), tokenizer, float(model.logit_scale.detach().float().exp()))


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory."""
    return CLIPModel(CLIPConfig(**config))
