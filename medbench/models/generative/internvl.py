"""InternVL3 and every other checkpoint of `InternVLForConditionalGeneration` (MODELS.md, section 6)."""

from typing import Any

from torch import nn
from transformers import InternVLConfig, InternVLForConditionalGeneration

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.generative_base import ChatEnded, load_processor

MAX_PATCHES = 4
"""Tiles of an image; the checkpoint's own 12 and a thumbnail are 3,328 tokens."""


class InternVl(ChatEnded):
    """A ViT, a projector, a Qwen decoder."""

    projector = ("multi_modal_projector",)


def load(checkpoint: Checkpoint, **placement: Any) -> InternVl:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does, or without a chat template."""
    path = checkpoint.folder()
    processor = load_processor(path, "internvl")
    processor.image_processor.max_patches = min(processor.image_processor.max_patches, MAX_PATCHES)
    return InternVl(hub.load_model(InternVLForConditionalGeneration, path, "internvl", hub.placement(**placement)), processor)


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory. Input and output embeddings are never tied."""
    return InternVLForConditionalGeneration(InternVLConfig(**{**config, "tie_word_embeddings": False}))
