"""BLIP-2 for retrieval, `Blip2ForImageTextRetrieval` (MODELS.md, section 3): its contrastive half, ITC.

`forward` of the class strips 32 tokens of text where the configuration names an image token, so both embeddings are computed through the
sub-modules instead.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import Blip2Config, Blip2ForImageTextRetrieval

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.loading import ImageOutput

LANGUAGE_HEAD = r"(.*\.)?cls\..*"
"""Of the Q-Former, which retrieval has no use for. The published sizes of the hub's files leave room for it in one of the two formats."""


class Blip2(hub.HubContrastive):
    """Features are the vision tower's class token, as in the study; embeddings those of the 32 queries, the best of which counts."""

    lora_targets = r"encoder\.layers\.\d+\.self_attn\.(qkv|projection)"

    def encode_images(self, pixels: torch.Tensor) -> ImageOutput:
        """Features [n, 1408], embeddings [n, 32, 256] at the published size."""
        states = self.model.vision_model(pixel_values=pixels.to(self.model.dtype)).last_hidden_state
        queries = self.model.query_tokens.expand(len(states), -1, -1)
        seen = self.model.qformer(query_embeds=queries, encoder_hidden_states=states, return_dict=True).last_hidden_state
        return ImageOutput(states[:, 0].float(), self.model.vision_projection(seen.to(self.model.dtype)).float())

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """The Q-Former without queries reads the text; its first token is the text."""
        length = self.model.config.qformer_config.max_position_embeddings
        batch = hub.tokens(self._tokenizer, list(texts), length, padding=True).to(self.device)
        with torch.inference_mode():
            embedded = self.model.embeddings(input_ids=batch["input_ids"])
            read = self.model.qformer(query_embeds=embedded, query_length=0, attention_mask=batch["attention_mask"], return_dict=True)
            encoded: torch.Tensor = self.model.text_projection(read.last_hidden_state[:, 0].to(self.model.dtype)).float()
        return encoded


def load(checkpoint: Checkpoint, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Blip2:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does.

    The published logit is the cosine itself, without a scale: class scores are close to each other, their order is the model's.
    """
    path = checkpoint.folder()
    model = hub.load_model(Blip2ForImageTextRetrieval, path, "blip-2", hub.placement(device, dtype), LANGUAGE_HEAD)
    return Blip2(model, hub.HubPixels(path), hub.load_tokenizer(path, model.config.qformer_config.vocab_size), scale=1.0)


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory."""
    return Blip2ForImageTextRetrieval(Blip2Config(**config))
