"""LLaVA-Med v1.5 from its original checkpoint, which is not in transformers' layout: renamed while it is read (MODELS.md, section 5).

The folder holds the decoder's configuration (`llava_mistral`), all weights and the tokenizer; its vision tower's configuration and image
processor come from the companion that `mm_vision_tower` names. Images are padded to a square, as the model was trained.
"""

import re
from pathlib import Path
from typing import Any

from torch import nn
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaImageProcessor, LlavaProcessor

from medbench.errors import MedbenchError
from medbench.models import hub, original
from medbench.models.checkpoint import Checkpoint, read_json
from medbench.models.generative_base import Generative
from medbench.models.loading import refusing

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    + original.CONTENT
    + "{{ ' [/INST]' }}{% endif %}{% endfor %}"
)
RENAMED = (
    (r"model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"model\.(?=embed_tokens|layers|norm)", "model.language_model."),
)  # the first that fits


class LlavaMed(Generative):
    """A CLIP tower, a two-layer projector, a Mistral decoder."""

    projector = ("multi_modal_projector",)

    def completion(self, answer: str) -> str:
        """A space, since the prompt ends with `[/INST]`, and the end of the turn."""
        return f" {answer}{self.tokenizer.eos_token}"


def load(checkpoint: Checkpoint, **placement: Any) -> LlavaMed:
    """Load from a hub id or a folder in the original layout. Raises MedbenchError as `hub` does, or for another layout."""
    path = checkpoint.folder()
    hub.check_type(path, "llava_mistral")
    config = read_json(path / "config.json")
    tower = _tower(checkpoint, path, config)
    with refusing(path / "config.json", "describes no model", "fetch it again"):
        made = configured({**config, "vision": read_json(tower / "config.json")})
    layout = original.Layout(("",), renamed, "")
    model, tokenizer = original.load(LlavaForConditionalGeneration, made, path, layout, hub.placement(**placement))
    return LlavaMed(model, _processor(tokenizer, model.config.vision_config))


def _tower(checkpoint: Checkpoint, path: Path, config: dict[str, Any]) -> Path:
    """Folder of the vision tower's configuration."""
    named = config.get("mm_vision_tower")
    if not named:
        raise MedbenchError(path, "its config.json names no mm_vision_tower", "give the original checkpoint")
    return checkpoint.companion(named, path, ["config.json", "preprocessor_config.json"])


def _processor(tokenizer: Any, vision: Any) -> LlavaProcessor:
    """The original evaluation's: padded to a square, then as CLIP has it."""
    side = vision.image_size
    images = LlavaImageProcessor(do_pad=True, size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        images, tokenizer, patch_size=vision.patch_size, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def renamed(name: str) -> str | None:
    """A tensor's name in transformers; None for one that is computed."""
    if name.endswith(("position_ids", "rotary_emb.inv_freq")):
        return None
    for pattern, new in RENAMED:
        if re.match(pattern, name):
            return re.sub(pattern, new, name, count=1)
    return name


def configured(config: dict[str, Any]) -> LlavaConfig:
    """An original `config.json` in transformers' words. `vision`: the tower's own configuration, by default CLIP-L at 336 pixels."""
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336}
    vision = config.get("vision") or {**large, "patch_size": 14, "projection_dim": 768}
    vision = vision.get("vision_config", vision)
    fields = {name: value for name, value in config.items() if not name.startswith("mm_") and name != "vision"}
    text = original.text_config("mistral", fields)
    return original.configured(config, text, CLIPVisionConfig, vision, "default")


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of an original `config.json`, untrained."""
    return LlavaForConditionalGeneration(configured(config))
