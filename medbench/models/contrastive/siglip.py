"""SigLIP, MedSigLIP and every other checkpoint of `SiglipModel` (MODELS.md, section 2)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.loading import ImageOutput


class Siglip(hub.HubContrastive):
    """Features are the attention-pooled output of the vision tower, which is the embedding too."""

    # The pooling head's own out_proj is applied as a function: an adapter there would never see a gradient.
    lora_targets = r"encoder\.layers\.\d+\.self_attn\.(q|k|v)_proj"

    def encode_images(self, pixels: torch.Tensor) -> ImageOutput:
        """One query: features and embeddings are the same vector."""
        pooled = self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)).pooler_output.float()
        return ImageOutput(pooled, pooled[:, None])

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Padded to the full length without an attention mask, as the model was trained: other padding changes the logits.

        In lower case, as it was trained too: SigLIP's own tokenizer sees to that, the Gemma tokenizer of SigLIP 2 does not.
        """
        length = self.model.config.text_config.max_position_embeddings
        lowered = [text.lower() for text in texts]
        ids = hub.tokens(self._tokenizer, lowered, length, padding="max_length", max_length=length)["input_ids"].to(self.device)
        with torch.inference_mode():
            encoded: torch.Tensor = self.model.get_text_features(input_ids=ids).pooler_output.float()
        return encoded


def load(checkpoint: Checkpoint, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Siglip:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does."""
    path = checkpoint.folder()
    model = hub.load_model(SiglipModel, path, "siglip", hub.placement(device, dtype))
    scale, bias = float(model.logit_scale.detach().float().exp()), float(model.logit_bias.detach().float())
    tokenizer = hub.load_tokenizer(path, model.config.text_config.vocab_size)
    return Siglip(model, hub.HubPixels(path), tokenizer, scale, bias)


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory."""
    return SiglipModel(SiglipConfig(**config))
