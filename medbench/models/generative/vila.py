"""VILA-1.5, VILA-M3: stock parts of transformers around a projector of VILA's own, read from the original layout (MODELS.md, section 7).

The folder holds `config.json` (`llava_llama`) and the parts in folders: `llm/` with the tokenizer, `vision_tower/` (SigLIP),
`mm_projector/`. Checkpoints whose decoder speaks Llama 3 (8B) or Vicuna (3B, 13B) work; those of several image scales do not.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, SiglipImageProcessor, SiglipVisionConfig

from medbench.errors import MedbenchError
from medbench.models import hub, original
from medbench.models.checkpoint import Checkpoint, read_json
from medbench.models.generative_base import Generative
from medbench.models.loading import refusing

PARTS = ("llm", "vision_tower", "mm_projector")
TURN_END, TEXT_END = "<|eot_id|>", "<|end_of_text|>"  # of Llama 3; the checkpoint may name either as its end
_LLAMA_3 = (
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language.END' }}"
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    + original.CONTENT
    + "{{ 'END' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>ANSWERER<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_3 = _LLAMA_3.replace("END", TURN_END).replace("ANSWERER", "assistant")
"""Conversation `llama_3` of NVlabs/VILA since 54c9706 (August 2024)."""
LLAMA_3_MAY_2024 = _LLAMA_3.replace("END", TEXT_END).replace("ANSWERER", "system")
"""The same of the first release (bbc609b, May 2024): other ends of turns, and the answer under the system's header."""
VICUNA = (
    "{{ 'A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.' }}"
    "{% for message in messages %}{{ ' USER: ' }}"
    + original.CONTENT
    + "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)


class Vila(Generative):
    """A SigLIP tower, a projector that joins two by two patches, a Llama decoder."""

    projector = ("multi_modal_projector",)
    more_ends = (TURN_END, TEXT_END)

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self._speaks_llama_3 = TURN_END in self.tokenizer.get_vocab()

    def completion(self, answer: str) -> str:
        """The answer and the end of the text, as VILA was taught; after `ASSISTANT:`, which has no space behind it, one stands before."""
        return f"{answer}{TEXT_END}" if self._speaks_llama_3 else f" {answer}{self.tokenizer.eos_token}"

    def image_tokens(self, size: tuple[int, int]) -> int:
        """The same for every image: all are squashed to one size."""
        side = self.processor.image_processor.size["height"] // self.processor.patch_size
        return int(side * side)


class Downsample(nn.Module):
    """Patch features [n, s*s, d] -> [n, t*t, 4d], t = ceil(s / 2): two by two patches joined, column after column, as VILA has them."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        side = round(features.shape[1] ** 0.5)
        square = features.reshape(len(features), side, side, -1)
        if side % 2:
            square = nn.functional.pad(square, (0, 0, 0, 1, 0, 1))
        half = square.shape[1] // 2
        blocks = square.reshape(len(features), half, 2, half, 2, -1)  # [n, row, 2, column, 2, d]
        joined: torch.Tensor = blocks.permute(0, 3, 1, 2, 4, 5).reshape(len(features), half * half, -1)
        return joined


class Projector(nn.Module):
    """VILA's `mlp_downsample`, with the names of its checkpoint."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Downsample(), nn.LayerNorm(4 * width), nn.Linear(4 * width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[n, s*s, width] -> [n, t*t, hidden]."""
        joined: torch.Tensor = self.layers(features)
        return joined


class VilaModel(LlavaForConditionalGeneration):  # type: ignore[no-untyped-call]
    """LLaVA's model with VILA's projector."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = Projector(config.vision_config.hidden_size, config.text_config.hidden_size)


def load(checkpoint: Checkpoint, llama_3: str = LLAMA_3, **placement: Any) -> Vila:
    """Load from a hub id or a folder in the original layout. `llama_3`: the chat template of a decoder that speaks Llama 3.

    Raises MedbenchError as `hub` does, or for another layout.
    """
    path = checkpoint.folder([f"{part}/*.safetensors" for part in PARTS], [f"{part}/pytorch_model*.bin" for part in PARTS])
    hub.check_type(path, "llava_llama")
    config = _config(path)
    with refusing(path / "config.json", "describes no model", "fetch it again, and those of its parts"):
        made = configured(config)
    layout = original.Layout(PARTS, renamed, "llm")
    model, tokenizer = original.load(VilaModel, made, path, layout, hub.placement(**placement))
    return Vila(model, _processor(path, tokenizer, model.config.vision_config, llama_3))


def _config(path: Path) -> dict[str, Any]:
    """The original `config.json`, with those of its parts. Raises MedbenchError for what these classes do not compute."""
    if absent := [part for part in PARTS if not (path / part / "config.json").is_file()]:
        found = f"is no checkpoint of VILA: {absent[0]}/config.json does not exist"
        raise MedbenchError(path, found, f"give a checkpoint with the folders {', '.join(PARTS)}")
    fields = read_json(path / "config.json") | {f"{part}_cfg": read_json(path / part / "config.json") for part in PARTS}
    kinds = (
        ("mm_projector_type", fields["mm_projector_cfg"].get("mm_projector_type"), "mlp_downsample"),
        ("vision tower", fields["vision_tower_cfg"].get("model_type"), "siglip_vision_model"),
        ("s2", bool(fields.get("s2") or fields.get("dynamic_s2")), False),
        ("image_aspect_ratio", fields.get("image_aspect_ratio", "resize"), "resize"),
        ("mm_use_im_start_end", bool(fields.get("mm_use_im_start_end")), False),
    )
    for name, value, expected in kinds:
        if value != expected:
            raise MedbenchError(path, f"has {name} {value!r}; architecture vila reads {expected!r}", "choose another checkpoint")
    return fields


def _processor(path: Path, tokenizer: Any, vision: Any, llama_3: str) -> LlavaProcessor:
    """Squashed to a square, as SigLIP has it; a place of the prompt for every two by two patches."""
    with refusing(path / "vision_tower", "holds no usable image processor", "add preprocessor_config.json"):
        images = SiglipImageProcessor.from_pretrained(path / "vision_tower", trust_remote_code=False, local_files_only=True)
    tokens = -(-(vision.image_size // vision.patch_size) // 2)  # a side
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        images, tokenizer, patch_size=vision.image_size // tokens, vision_feature_select_strategy="full", num_additional_image_tokens=0,
        chat_template=llama_3 if TURN_END in tokenizer.get_vocab() else VICUNA,
    )  # fmt: skip


def renamed(name: str) -> str | None:
    """A tensor's name in transformers, from its part and its name there; None for one that is computed."""
    part, _, own = name.partition("/")
    if own.endswith(("position_ids", "rotary_emb.inv_freq")):
        return None
    if part == "llm":
        return own.replace("model.", "model.language_model.", 1) if own.startswith("model.") else own
    if part == "vision_tower":
        return f"model.vision_tower.{own.removeprefix('vision_model.')}"
    return f"model.multi_modal_projector.{own}"


def configured(config: dict[str, Any]) -> LlavaConfig:
    """In transformers' words."""
    text = original.text_config(config["llm_cfg"]["model_type"], config["llm_cfg"])
    return original.configured(config, text, SiglipVisionConfig, config["vision_tower_cfg"], "full")


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of an original `config.json` with its parts' configurations, untrained."""
    return VilaModel(configured(config))
