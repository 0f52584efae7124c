"""Tiny untrained checkpoints of the generative families, in the layouts of published ones. Holds no test."""

from pathlib import Path
from typing import Any

import pytest

from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.generative_base import Generative
from tests.unit import checkpoints

FAMILIES = ("qwen2-vl", "qwen2-5-vl", "qwen3-vl", "internvl", "gemma3", "llava-med", "vila")
ALL = ("llava", *FAMILIES)
PUBLISHED = {
    "llava": "llava-1.5", "qwen2-vl": "qwen2-vl", "qwen2-5-vl": "qwen2.5-vl", "qwen3-vl": "qwen3-vl", "internvl": "internvl3",
    "gemma3": "gemma-3",    "llava-med": "llava-med", "vila": "vila-1.5",
}  # fmt: skip
"""Which of the study's models stands for a family."""


def families(*chosen: str) -> list[Any]:
    """Those for `make test`; `make test-all` takes them all."""
    return [name if name in chosen else pytest.param(name, marks=pytest.mark.full) for name in ALL]


def checkpoint(family: str, folder: Path) -> Path:
    """An untrained model in the layout of one of its published checkpoints (tests.unit.checkpoints)."""
    return checkpoints.build(PUBLISHED[family], folder)


def load(family: str, folder: Path | str) -> Generative:
    """The checkpoint, a folder or a hub id, through the project's own loader."""
    model: Generative = loading.load(Source(loading.module_name("generative", family), str(folder)))
    return model
