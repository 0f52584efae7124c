"""Gemma 3, MedGemma and every other checkpoint of `Gemma3ForConditionalGeneration` (MODELS.md, section 6)."""

from typing import Any

from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.generative_base import Generative, load_processor

TURN_END = "<end_of_turn>"


class Gemma3(Generative):
    """A SigLIP tower, a projector, a Gemma decoder. The chat template writes the first token itself."""

    projector = ("multi_modal_projector",)
    more_ends = (TURN_END,)

    def completion(self, answer: str) -> str:
        """The answer and the end of the turn."""
        return f"{answer}{TURN_END}"


def load(checkpoint: Checkpoint, **placement: Any) -> Gemma3:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does, or without a chat template."""
    path = checkpoint.folder()
    model = hub.load_model(Gemma3ForConditionalGeneration, path, "gemma3", hub.placement(**placement))
    return Gemma3(model, load_processor(path, "gemma3"))


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory."""
    return Gemma3ForConditionalGeneration(Gemma3Config(**config))
