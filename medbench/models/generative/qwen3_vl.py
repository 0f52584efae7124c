"""Qwen3-VL and every other dense checkpoint of `Qwen3VLForConditionalGeneration`."""

from typing import Any

from torch import nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.generative.qwen2_vl import QwenVl, bounded
from medbench.models.generative_base import load_processor

SIDE = 32
"""Pixels of an image token's side: patches of 16, two by two merged."""


class Qwen3Vl(QwenVl):
    """As its predecessors; features of three earlier layers of the tower enter the decoder by mergers of their own."""

    projector = ("visual.merger", "visual.deepstack_merger_list")


def load(checkpoint: Checkpoint, **placement: Any) -> Qwen3Vl:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does, or without a chat template."""
    path = checkpoint.folder()
    model = hub.load_model(Qwen3VLForConditionalGeneration, path, "qwen3_vl", hub.placement(**placement))
    return Qwen3Vl(model, bounded(load_processor(path, "qwen3_vl"), SIDE))


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory."""
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**config))
