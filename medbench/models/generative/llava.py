"""LLaVA-1.5 and every other checkpoint of `LlavaForConditionalGeneration` (MODELS.md, section 5)."""

import torch
from transformers import LlavaForConditionalGeneration

from medbench.models import hub
from medbench.models.generative_base import Generative, load_processor


class Llava(Generative):
    """A CLIP tower, a two-layer projector, a Llama or Mistral decoder."""

    lora_targets = r".*\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    projector = ("multi_modal_projector",)

    def completion(self, answer: str) -> str:
        """A space, since the prompt ends with `ASSISTANT:` and no space, and the end of the turn."""
        return f" {answer}{self.tokenizer.eos_token}"


def load(checkpoint: str, revision: str | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Llava:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does, or without a chat template."""
    path = hub.folder(checkpoint, revision)
    processor = load_processor(path)
    return Llava(hub.load_model(LlavaForConditionalGeneration, path, "llava", hub.placement(device, dtype)), processor)
