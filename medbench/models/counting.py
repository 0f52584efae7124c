"""Parameters of a configuration, counted on the meta device: no weights, no memory."""

import importlib
from typing import Any

import torch


def parameters(module: str, config: dict[str, Any]) -> int:
    """Of the architecture's `skeleton`; tied tensors count once."""
    with torch.device("meta"):
        model = importlib.import_module(module).skeleton(config)
    return sum(value.numel() for value in model.parameters())
