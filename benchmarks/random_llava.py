"""LLaVA with random weights in hub format, of the size of real ones or smaller. No polars, no pyarrow."""

from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from medbench.demo import llavaformat, minillava

MODULE = "medbench.models.generative.llava"
SIZES: dict[str, dict[str, int]] = {
    "small": {"hidden": 384, "intermediate": 1024, "layers": 6, "heads": 6, "vision": 192, "vision_layers": 4, "side": 112, "patch": 16},
    "long": {"hidden": 384, "intermediate": 1024, "layers": 6, "heads": 6, "vision": 192, "vision_layers": 4, "side": 336, "patch": 14},
    "7b": {
        "hidden": 4096,
        "intermediate": 11008,
        "layers": 32,
        "heads": 32,
        "vision": 1024,
        "vision_layers": 24,
        "side": 336,
        "patch": 14,
        "words": 32000,
    },
}
SIZES["wide"] = SIZES["long"] | {"words": 32000}


def checkpoint(folder: Path, size: str) -> str:
    """An untrained LLaVA in hub format: `mini` as in the demo, or one of SIZES."""
    tokenizer = llavaformat.train_tokenizer(minillava.texts())
    torch.manual_seed(0)
    if size == "mini":
        llavaformat.save(llavaformat.build(tokenizer), tokenizer, folder)
        return str(folder)
    of, tokens = SIZES[size], {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vision = CLIPVisionConfig(
        hidden_size=of["vision"], intermediate_size=4 * of["vision"], num_hidden_layers=of["vision_layers"],
        num_attention_heads=of["vision"] // 64, image_size=of["side"], patch_size=of["patch"],
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=of["hidden"], intermediate_size=of["intermediate"], num_hidden_layers=of["layers"], num_attention_heads=of["heads"],
        vocab_size=max(len(tokenizer), of.get("words", 0)), max_position_embeddings=2048, **tokens,
    )  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image, vision_feature_layer=-2)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    model.generation_config = GenerationConfig(**tokens)
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": of["side"]}, crop_size={"height": of["side"], "width": of["side"]})
    LlavaProcessor(
        images, tokenizer, patch_size=of["patch"], vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=llavaformat.CHAT_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)
