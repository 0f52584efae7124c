"""Qwen2-VL and every other checkpoint of `Qwen2VLForConditionalGeneration` (MODELS.md, section 6)."""

from typing import Any

from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.generative_base import ChatEnded, load_processor

MIN_TOKENS, MAX_TOKENS = 256, 1280
"""Bounds of an image: without the upper one a large photograph becomes tens of thousands of tokens."""
SIDE = 28
"""Pixels of an image token's side: patches of 14, two by two merged."""


class QwenVl(ChatEnded):
    """A vision transformer of native resolution, a merger, a Qwen decoder."""

    projector: tuple[str, ...] = ("visual.merger",)


def load(checkpoint: Checkpoint, **placement: Any) -> QwenVl:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does, or without a chat template."""
    path = checkpoint.folder()
    model = hub.load_model(Qwen2VLForConditionalGeneration, path, "qwen2_vl", hub.placement(**placement))
    return QwenVl(model, bounded(load_processor(path, "qwen2_vl")))


def bounded(processor: Any, side: int = SIDE) -> Any:
    """The processor with no looser bounds on an image's pixels than ours; `side` as SIDE."""
    images = processor.image_processor
    size, least, most = dict(images.size), MIN_TOKENS * side**2, MAX_TOKENS * side**2
    low, high = size.get("shortest_edge", least), size.get("longest_edge", most)
    images.size = {"shortest_edge": min(low, most), "longest_edge": min(high, most)}
    return processor


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory."""
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(**config))
