"""VILA-1.5 as first released: its turns end otherwise, and its answers stand under the system's header (MODELS-2.md, section 1)."""

from typing import Any

from torch import nn

from medbench.models.checkpoint import Checkpoint
from medbench.models.generative import vila


def load(checkpoint: Checkpoint, **placement: Any) -> vila.Vila:
    """As `vila.load`."""
    return vila.load(checkpoint, vila.LLAMA_3_MAY_2024, **placement)


def skeleton(config: dict[str, Any]) -> nn.Module:
    """As `vila.skeleton`."""
    return vila.skeleton(config)
