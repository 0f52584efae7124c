"""Tokens of models in questions and answers: what stands for an image goes, what ends or begins a turn of a chat is a mistake.

Each family has its own tokens, and each model acts on its own alone: one that stays in a question makes models answer different questions.
"""

import re

_IMAGE = re.compile(
    r"""(?:\s*(?:
        </?(?:img|image|video)(?:[\s_-]*\d+)?\s*/?>              # LLaVA, VILA, InternVL
      | <(?:image|img|video)[\s_-]?(?:placeholder|context|soft[\s_-]?token|pad|patch|here|token)>
      | </?(?:im_start|im_end|im_patch|start_of_image|end_of_image|boi|eoi|fake_token_around_image)>
      | <\|\s*/?(?:image|img|video|vision|boi|eoi|im(?:g|age)?_(?:patch|col))[\w\s]*\|>   # Qwen-VL, Llama, Phi
      | \[(?:img|img_break|img_end|image)\]                        # Pixtral
    )\s*)+""",
    re.IGNORECASE | re.VERBOSE,
)
_TURN = re.compile(
    r"""<\|[^|<>\s]{1,40}\|>                                       # <|im_start|>, <|eot_id|>, <|endoftext|>
      | <\uff5c[^\uff5c<>]{1,40}\uff5c>
      | </?s> | <(?:bos|eos|pad|unk|mask|eot|eot_id|start_of_turn|end_of_turn|unused\d+|loc\d+|seg\d+)>
      | \[/?INST\] | <</?SYS>> | \[(?:CLS|SEP|PAD|UNK|MASK)\]""",
    re.IGNORECASE | re.VERBOSE,
)


def without_image_tokens(text: str) -> str:
    """The text without tokens that stand for an image, in whatever family: `<image>`, `<|image_pad|>`, `<start_of_image>`, ..."""
    return _IMAGE.sub(lambda found: "\n" if "\n" in found[0] else " ", text).strip() if _IMAGE.search(text) else text


def token_of_a_turn(text: str) -> str | None:
    """The first token of a chat or of a tokenizer in a text: `<|im_start|>`, `</s>`, `[INST]`, ...; None where there is none."""
    return found[0] if (found := _TURN.search(text)) else None
