"""Checkpoints in the layout of their authors' own code: renamed while they are read, and given the tokens that transformers wants.

Shared by LLaVA-Med and VILA, which keep the place of an image out of their vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn
from transformers import AutoConfig, GenerationConfig, LlavaConfig

from medbench.errors import MedbenchError
from medbench.models import hub

IMAGE, PAD = "<image>", "<pad>"
MULTIPLE = 64  # rows of the embedding, after the two tokens are added
VOCABULARY = {"model.language_model.embed_tokens.weight", "lm_head.weight"}
CONTENT = (
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ content['text'] }}{% endif %}{% endfor %}"
)
"""Of a chat template: what one message holds."""
NOT_FIELDS = frozenset({"model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path"})


class Layout(NamedTuple):
    """Where the parts of a checkpoint lie below its folder, and what its tensors are called in transformers."""

    parts: Sequence[str]  # folders with weights
    renamed: Callable[[str], str | None]  # of `part/name`; None for one that is computed
    tokenizer: str  # folder


def text_config(model_type: str, fields: Mapping[str, Any]) -> Any:
    """A decoder's configuration from an older `config.json`, positions included: their base moved since (`rope_theta`)."""
    return AutoConfig.for_model(model_type, **{name: value for name, value in fields.items() if name not in NOT_FIELDS})


def configured(
    config: Mapping[str, Any], text: Any, vision_class: type[Any], vision: Mapping[str, Any], strategy: Literal["default", "full"]
) -> LlavaConfig:
    """In transformers' words, from an original `config.json` and its vision tower's. `strategy`: which of the tower's tokens are used."""
    return LlavaConfig(
        vision_config=vision_class(**{name: value for name, value in vision.items() if name not in NOT_FIELDS}),
        text_config=text,
        image_token_index=text.vocab_size,
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy=strategy,
    )


def load(model_class: type[Any], config: Any, path: Path, layout: Layout, place: hub.Placement) -> tuple[Any, Any]:
    """Model and tokenizer, with tokens for the image and for padding, which are never answered. Raises MedbenchError as `hub` does."""
    tensors = hub.read_shards(path, layout.parts, layout.renamed)
    known = max((len(tensors[name]) for name in VOCABULARY & tensors.keys()), default=None)
    tokenizer = hub.load_tokenizer(path / layout.tokenizer, known)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE], "pad_token": PAD})
    text = config.text_config
    if known is not None and text.vocab_size > 2 * known:
        found = f"has vocab_size {text.vocab_size}, its weights have {known} words"
        raise MedbenchError(path / layout.tokenizer / "config.json", found, "fetch it again")
    image, pad = tokenizer.convert_tokens_to_ids([IMAGE, PAD])
    rows = -(-max(len(tokenizer), text.vocab_size) // MULTIPLE) * MULTIPLE
    for name in VOCABULARY & tensors.keys():  # zeros: rows that were drawn at random would differ from load to load
        tensors[name] = nn.functional.pad(tensors[name], (0, 0, 0, rows - len(tensors[name])))
    text.vocab_size, text.pad_token_id = rows, pad
    config.image_token_index = config.image_token_id = image
    config.pad_token_id = pad
    model = hub.from_tensors(model_class, config, tensors, path, place)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad,
        suppress_tokens=sorted({image, pad, *range(len(tokenizer), rows)}),
    )  # fmt: skip
    return model, tokenizer
