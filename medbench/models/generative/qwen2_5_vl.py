"""Qwen2.5-VL, Lingshu and every other checkpoint of `Qwen2_5_VLForConditionalGeneration` (MODELS.md, section 6)."""

from typing import Any

from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.generative.qwen2_vl import QwenVl, bounded
from medbench.models.generative_base import load_processor


def load(checkpoint: Checkpoint, **placement: Any) -> QwenVl:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does, or without a chat template."""
    path = checkpoint.folder()
    model = hub.load_model(Qwen2_5_VLForConditionalGeneration, path, "qwen2_5_vl", hub.placement(**placement))
    return QwenVl(model, bounded(load_processor(path, "qwen2_5_vl")))


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory."""
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
