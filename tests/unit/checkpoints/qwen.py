"""Qwen2-VL, Qwen2.5-VL, Lingshu, InternVL3, whose decoders are Qwen's. *Evidence* and *inferred* as in `contrastive`."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    InternVLForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from tests.unit.checkpoints import words
from tests.unit.checkpoints.contrastive import CLIP_MEAN, CLIP_STD, RESCALED
from tests.unit.checkpoints.generative import OLD_LLAVA, save, template
from tests.unit.checkpoints.layout import card, write
from tests.unit.checkpoints.originals import DECODER

OLD_INTERNVL = {**OLD_LLAVA, "model.vision_tower.": "vision_tower."}
OLD_QWEN = {"model.visual.": "visual.", "model.language_model.": "model."}
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}{% elif content['type'] == 'text' %}"
    "{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
QWEN_2_5_TOKENS = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>"]
QWEN_2_5_TOKENS += ["<|file_sep|>"]


def _qwen_tokenizer(folder: Path, tokens: list[str], plain: frozenset[str] = frozenset(), **more: Any) -> dict[str, int]:
    """Three files of words and tokenizer_config.json; `plain` tokens are not special."""
    ids = words.chatml(folder, tokens, plain)
    decoder = {str(number): words.entry(token, token not in plain) for token, number in ids.items()}
    fields = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": decoder,
        "additional_special_tokens": [token for token in QWEN_TOKENS[1:] if token in ids], "bos_token": None,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 32768,
        "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None, **more,
    }  # fmt: skip
    write(folder / "tokenizer_config.json", fields)
    return ids


def _qwen_text(ids: dict[str, int], rows: int) -> dict[str, Any]:
    """A decoder's fields: `rows` of the vocabulary are more than the tokenizer has tokens, as published."""
    return {
        "attention_dropout": 0.0, "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "hidden_act": "silu", **DECODER,
        "initializer_range": 0.02, "max_window_layers": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
        "use_cache": True, "use_sliding_window": False, "vocab_size": rows,
    }  # fmt: skip


def _qwen(folder: Path, ids: dict[str, int], kind: str, vision: dict[str, Any], shards: int, nested: bool, repetition: float) -> None:
    model_class = Qwen2VLForConditionalGeneration if kind == "qwen2_vl" else Qwen2_5_VLForConditionalGeneration
    text = _qwen_text(ids, -(-(max(ids.values()) + 1) // 64) * 64 + 64)
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    places = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>"}
    places |= {"vision_end_token_id": "<|vision_end|>", "vision_token_id": "<|vision_pad|>"}
    config = {
        "architectures": [model_class.__name__], **text, "model_type": kind, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2", "vision_config": vision, **{name: ids[token] for name, token in places.items()},
    }  # fmt: skip
    if nested:
        inner = {**text, "model_type": f"{kind}_text", "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vision_token_id": None}
        inner["rope_scaling"] = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
        config |= {"text_config": inner, "rope_scaling": inner["rope_scaling"], "transformers_version": "4.52.4"}
    ends = {"bos_token_id": ids["<|endoftext|>"], "pad_token_id": ids["<|endoftext|>"]}
    sampling = {"do_sample": True, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "repetition_penalty": repetition}
    write(folder / "generation_config.json", {**ends, **sampling, "temperature": 1e-06, "transformers_version": "4.37.0"})
    name = "Qwen2VLProcessor" if kind == "qwen2_vl" else "Qwen2_5_VLProcessor"
    pixels = {  # published: 3136 and 12845056
        "min_pixels": 28 * 28, "max_pixels": 4 * 28 * 28, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "image_processor_type": "Qwen2VLImageProcessor", "processor_class": name,
    }  # fmt: skip
    write(folder / "preprocessor_config.json", pixels)
    save(folder, model_class, config, OLD_QWEN, shards, torch.bfloat16)
    card(folder)


QWEN_2_5_VISION: dict[str, Any] = {
    "depth": 2, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "in_chans": 3, "out_hidden_size": 32,
    "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1],
    "tokens_per_second": 2, "temporal_patch_size": 2,
}  # fmt: skip


def qwen2_vl(folder: Path) -> None:
    """Qwen/Qwen2-VL-7B-Instruct: a flat configuration, five shards, no processor_config.json, no map of special tokens (inferred)."""
    vision = {
        "depth": 2, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "in_chans": 3, "hidden_size": 32, "patch_size": 14,
        "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2,
    }  # fmt: skip
    _qwen(folder, _qwen_tokenizer(folder, QWEN_TOKENS), "qwen2_vl", vision, 5, False, 1.0)
    template(folder, QWEN_TEMPLATE, "chat_template.json", "tokenizer_config.json")
    (folder / "LICENSE").write_text("Apache License 2.0\n")


def qwen2_5_vl(folder: Path) -> None:
    """Qwen/Qwen2.5-VL-7B-Instruct: as Qwen2-VL; the fields of its pixels follow a public copy of its first days (evidence)."""
    tokens = [*QWEN_TOKENS, *QWEN_2_5_TOKENS]
    _qwen(folder, _qwen_tokenizer(folder, tokens, frozenset(QWEN_2_5_TOKENS)), "qwen2_5_vl", QWEN_2_5_VISION, 5, False, 1.05)
    template(folder, QWEN_TEMPLATE, "chat_template.json", "tokenizer_config.json")


def lingshu(folder: Path) -> None:
    """lingshu-medical-mllm/Lingshu-7B: Qwen2.5-VL as transformers 4.52 saves it after training, in four shards (inferred)."""
    tokens = [*QWEN_TOKENS, *QWEN_2_5_TOKENS]
    more = {"extra_special_tokens": {}, "processor_class": "Qwen2_5_VLProcessor"}
    ids = _qwen_tokenizer(folder, tokens, frozenset(QWEN_2_5_TOKENS), **more)
    _qwen(folder, ids, "qwen2_5_vl", QWEN_2_5_VISION, 4, True, 1.05)
    write(folder / "added_tokens.json", ids)
    named = words.special_map(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    write(folder / "special_tokens_map.json", {"additional_special_tokens": QWEN_TOKENS[1:], **named})
    template(folder, QWEN_TEMPLATE, "chat_template.jinja")


QWEN_3_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_3_TOKENS = [*QWEN_2_5_TOKENS, "<tool_response>", "</tool_response>", "<think>", "</think>"]


def qwen3_vl(folder: Path) -> None:
    """Qwen/Qwen3-VL-8B-Instruct: nested fields, the names of transformers 4.57 and its pixels (evidence); four shards (inferred).

    One layer of the tower enters the decoder, not three: what enters after the decoder's last of two layers would never be read.
    """
    ids = _qwen_tokenizer(folder, [*QWEN_TOKENS, *QWEN_3_TOKENS], frozenset(QWEN_3_TOKENS))
    text = {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": ids["<|endoftext|>"], "dtype": "bfloat16",
        "eos_token_id": ids["<|im_end|>"], "head_dim": 16, "hidden_act": "silu", **DECODER, "initializer_range": 0.02,
        "model_type": "qwen3_vl_text", "rms_norm_eps": 1e-06, "rope_theta": 5000000, "use_cache": True,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
        "vocab_size": -(-(max(ids.values()) + 1) // 64) * 64 + 64,
    }  # fmt: skip
    vision = {
        "deepstack_visual_indexes": [0], "depth": 2, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 32, "in_channels": 3,
        "initializer_range": 0.02, "intermediate_size": 64, "model_type": "qwen3_vl", "num_heads": 2, "num_position_embeddings": 64,
        "out_hidden_size": 32, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    places = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>"}
    places |= {"vision_end_token_id": "<|vision_end|>"}
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl", "text_config": text, "tie_word_embeddings": False,
        "transformers_version": "4.57.0.dev0", "vision_config": vision, **{name: ids[token] for name, token in places.items()},
    }  # fmt: skip
    ends = {"bos_token_id": ids["<|endoftext|>"], "pad_token_id": ids["<|endoftext|>"]}
    sampling = {"do_sample": True, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "top_k": 20, "top_p": 0.8}
    write(folder / "generation_config.json", {**ends, **sampling, "temperature": 0.7, "transformers_version": "4.56.0"})
    pixels = {
        "size": {"longest_edge": 4 * 32 * 32, "shortest_edge": 32 * 32}, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "processor_class": "Qwen3VLProcessor",
    }  # fmt: skip
    write(
        folder / "preprocessor_config.json", {**pixels, "image_processor_type": "Qwen2VLImageProcessorFast"}
    )  # published: 65536, 16777216
    write(folder / "video_preprocessor_config.json", {**pixels, "video_processor_type": "Qwen3VLVideoProcessor"})
    save(folder, Qwen3VLForConditionalGeneration, config, {}, 4, torch.bfloat16)
    template(folder, QWEN_3_TEMPLATE, "chat_template.json", "tokenizer_config.json")
    card(folder)


INTERNVL_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", "<video>"]


def internvl3(folder: Path) -> None:
    """OpenGVLab/InternVL3-8B-hf: the list of files is that of the next version's (evidence), the vision fields of public copies."""
    tokens = [*QWEN_TOKENS, *QWEN_2_5_TOKENS, *INTERNVL_TOKENS]
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    plain = frozenset(QWEN_2_5_TOKENS)
    ids = _qwen_tokenizer(folder, tokens, plain, **named, extra_special_tokens=named, processor_class="InternVLProcessor")
    write(folder / "added_tokens.json", ids)
    special = words.special_map(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    write(folder / "special_tokens_map.json", {"additional_special_tokens": QWEN_TOKENS[1:], **named, **special})
    vision = {
        "architectures": ["InternVisionModel"], "attention_bias": True, "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "hidden_size": 32, "image_size": [56, 56], "initializer_factor": 0.1, "initializer_range": 1e-10,
        "intermediate_size": 64, "layer_norm_eps": 1e-06, "layer_scale_init_value": 0.1, "model_type": "internvl_vision",
        "norm_type": "layer_norm", "num_attention_heads": 2, "num_channels": 3, "num_hidden_layers": 2, "patch_size": [14, 14],
        "projection_dropout": 0.0, "torch_dtype": "bfloat16", "use_absolute_position_embeddings": True, "use_mask_token": False,
        "use_mean_pooling": True, "use_qk_norm": False,
    }  # fmt: skip
    text = _qwen_text(ids, max(ids.values()) + 1)
    text |= {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16", "tie_word_embeddings": False}
    text |= {"rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}, "sliding_window": None}
    config = {
        "architectures": ["InternVLForConditionalGeneration"], "downsample_ratio": 0.5, "image_seq_length": 4,
        "image_token_id": ids["<IMG_CONTEXT>"], "model_type": "internvl", "projector_hidden_act": "gelu", "text_config": text,
        "torch_dtype": "bfloat16", "transformers_version": "4.52.0.dev0", "vision_config": vision, "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    }  # fmt: skip
    write(folder / "generation_config.json", {"eos_token_id": ids["<|im_end|>"], "transformers_version": "4.52.0.dev0"})
    pixels = {
        "crop_size": None, "crop_to_patches": False, "data_format": "channels_first", "default_to_square": True, "device": None,
        "do_center_crop": None, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "GotOcr2ImageProcessorFast", "image_std": [0.229, 0.224, 0.225],
        "input_data_format": None, "max_patches": 12, "min_patches": 1, "processor_class": "InternVLProcessor", "resample": 3,
        "rescale_factor": RESCALED, "return_tensors": None, "size": {"height": 56, "width": 56},
    }  # fmt: skip
    write(folder / "preprocessor_config.json", pixels)
    dropped = ("crop_to_patches", "image_processor_type", "max_patches", "min_patches")
    videos = {name: value for name, value in pixels.items() if name not in dropped} | {"video_processor_type": "InternVLVideoProcessor"}
    write(folder / "video_preprocessor_config.json", videos)
    write(folder / "processor_config.json", {"image_seq_length": 4, "processor_class": "InternVLProcessor"})
    template(folder, INTERNVL_TEMPLATE, "chat_template.jinja")
    save(folder, InternVLForConditionalGeneration, config, OLD_INTERNVL, 4, torch.bfloat16)
    card(folder)
