"""LLaVA-1.5 and every other checkpoint of `LlavaForConditionalGeneration` (MODELS.md, section 5)."""

from typing import Any

from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaImageProcessor

from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.generative_base import Generative, load_processor


class Llava(Generative):
    """A CLIP tower, a two-layer projector, a Llama or Mistral decoder."""

    projector = ("multi_modal_projector",)

    def completion(self, answer: str) -> str:
        """A space, since the prompt ends with `ASSISTANT:` and no space, and the end of the turn."""
        return f" {answer}{self.tokenizer.eos_token}"


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `config.json`, untrained; on the meta device it takes no memory."""
    return LlavaForConditionalGeneration(LlavaConfig(**config))


def load(checkpoint: Checkpoint, **placement: Any) -> Llava:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does, or without a chat template.

    Converted checkpoints come with CLIP's image processor, which cuts a square out of the middle; the models were trained on images padded
    to a square. LLaVA's own does either: as the checkpoint says, unless the registry's entry says `processor: {do_pad: true}`.
    """
    path = checkpoint.folder()
    processor = load_processor(path, "llava")
    processor.image_processor = LlavaImageProcessor.from_dict(processor.image_processor.to_dict())
    return Llava(hub.load_model(LlavaForConditionalGeneration, path, "llava", hub.placement(**placement)), processor)
