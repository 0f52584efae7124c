"""LLaVA-1.5, Gemma 3, MedGemma: tiny, untrained, in all else as their repositories are.

Names of tensors are those on disk, changed by hand from those of transformers 5. *Evidence* and *inferred* as in `contrastive`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    Gemma3ForConditionalGeneration,
    LlavaForConditionalGeneration,
)

from tests.unit.checkpoints import words
from tests.unit.checkpoints.contrastive import CLIP_MEAN, CLIP_STD, RESCALED
from tests.unit.checkpoints.layout import card, randomise, renamed, safetensors, write
from tests.unit.checkpoints.originals import DECODER, TOWER

OLD_LLAVA = {
    "model.vision_tower.": "vision_tower.vision_model.", "model.multi_modal_projector.": "multi_modal_projector.",
    "model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.",
}  # fmt: skip
LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}"
    "{% endfor %}{# Render all text next #}{% set texts = message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% if message['role'] != 'assistant' %}{% for content in texts %}{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in texts %}{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}\n{%- for message in messages -%}\n{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}\n"
    "{{ '<start_of_turn>' + role + '\n' }}\n{%- if message['content'] is string -%}\n{{ message['content'] | trim }}\n{%- else -%}\n"
    "{%- for item in message['content'] -%}\n{%- if item['type'] == 'image' -%}\n{{ '<start_of_image>' }}\n"
    "{%- elif item['type'] == 'text' -%}\n{{ item['text'] | trim }}\n{%- endif -%}\n{%- endfor -%}\n{%- endif -%}\n"
    "{{ '<end_of_turn>\n' }}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n{{ '<start_of_turn>model\n' }}\n{%- endif -%}\n"
)


def save(
    folder: Path, model_class: Any, config: dict[str, Any], old: dict[str, str], shards: int, dtype: torch.dtype, tied: bool = False
) -> None:
    """Configuration and weights. `tied`: the output matrix is the input's, and is left out, as 4.x did."""
    write(folder / "config.json", config)
    read = AutoConfig.from_pretrained(folder)
    read.tie_word_embeddings = tied
    made = model_class(read)
    assert (made.lm_head.weight is made.get_input_embeddings().weight) == tied
    randomise(made)
    tensors = renamed(made, old, dtype)
    safetensors(folder, {name: value for name, value in tensors.items() if not (tied and name.endswith("lm_head.weight"))}, shards)


def template(folder: Path, text: str, *files: str) -> None:
    """Into chat_template.json, chat_template.jinja, or a field of tokenizer_config.json."""
    for name in files:
        path = folder / name
        fields = json.loads(path.read_text()) if path.exists() else {}
        write(path, text if path.suffix == ".jinja" else {**fields, "chat_template": text})


def llava(folder: Path) -> None:
    """llava-hf/llava-1.5-7b-hf: the list of files, each JSON file and the chat template follow a public copy (evidence); three shards."""
    pieces = words.llama_2(folder)
    words.fast_from_spm(folder, "llama", ["<image>", "<pad>"])
    rows = -(-(pieces + 2) // 64) * 64
    config = {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": pieces, "model_type": "llava",
        "pad_token_id": pieces + 1, "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], **DECODER, "model_type": "llama",
            "rms_norm_eps": 1e-05, "torch_dtype": "float16", "vocab_size": rows,
        },
        "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
        "vision_config": {**TOWER, "model_type": "clip_vision_model", "projection_dim": 32, "vocab_size": 32000},
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": rows,
    }  # fmt: skip
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": pieces + 1}
    write(folder / "generation_config.json", {"_from_model_config": True, **ends, "transformers_version": "4.36.0.dev0"})
    tokens = {0: "<unk>", 1: "<s>", 2: "</s>", pieces: "<image>", pieces + 1: "<pad>"}
    fields = {
        "add_bos_token": True, "add_eos_token": False, "add_prefix_space": None,
        "added_tokens_decoder": {str(number): words.entry(token) for number, token in tokens.items()}, "bos_token": "<s>",
        "clean_up_tokenization_spaces": False, "eos_token": "</s>", "extra_special_tokens": {"image_token": "<image>"},
        "image_token": "<image>", "legacy": False, "model_max_length": 1000000000000000019884624838656, "pad_token": "<pad>",
        "padding_side": "left", "processor_class": "LlavaProcessor", "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer",
        "trust_remote_code": False, "unk_token": "<unk>", "use_default_system_prompt": False,
    }  # fmt: skip
    write(folder / "tokenizer_config.json", fields)
    named = words.special_map(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    write(folder / "special_tokens_map.json", named)
    write(folder / "added_tokens.json", {"<image>": pieces, "<pad>": pieces + 1})
    side = TOWER["image_size"]
    pixels = {
        "crop_size": {"height": side, "width": side}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
        "do_rescale": True, "do_resize": True, "image_mean": CLIP_MEAN, "image_processor_type": "CLIPImageProcessor",
        "image_std": CLIP_STD, "processor_class": "LlavaProcessor", "resample": 3, "rescale_factor": RESCALED,
        "size": {"shortest_edge": side},
    }  # fmt: skip
    write(folder / "preprocessor_config.json", pixels)
    processor = {"image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": TOWER["patch_size"]}
    processor |= {"processor_class": "LlavaProcessor", "vision_feature_select_strategy": "default"}
    write(folder / "processor_config.json", processor)
    template(folder, LLAVA_TEMPLATE, "chat_template.json", "chat_template.jinja")
    save(folder, LlavaForConditionalGeneration, config, OLD_LLAVA, 3, torch.float16)
    card(folder)


GEMMA_TOKENS = ("<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")


def gemma3(folder: Path, wordy: bool = False) -> None:
    """google/gemma-3-4b-it: terse fields and two shards, no output matrix (evidence); the image's token lies behind the pieces."""
    pieces = words.gemma(folder, GEMMA_TOKENS)
    words.fast_from_spm(folder, "gemma", [*GEMMA_TOKENS, "<image_soft_token>"])
    ids = {token: 4 + place for place, token in enumerate(GEMMA_TOKENS)}
    text = {
        **DECODER, "head_dim": 8, "model_type": "gemma3_text", "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 64,
        "vocab_size": -(-(pieces + 1) // 64) * 64,
    }  # fmt: skip
    if wordy:  # as transformers 4.51 wrote it (inferred)
        text |= {
            "attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": None, "cache_implementation": "hybrid",
            "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh", "initializer_range": 0.02,
            "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "rope_theta": 1000000.0,
            "sliding_window_pattern": 6, "torch_dtype": "bfloat16", "use_cache": True,
        }  # fmt: skip
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"], "eos_token_id": [1, ids["<end_of_turn>"]], "image_token_index": pieces,
        "initializer_range": 0.02, "mm_tokens_per_image": 4, "model_type": "gemma3", "text_config": text, "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0", "vision_config": {**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False},
    }  # fmt: skip
    sampling = {"cache_implementation": "hybrid", "do_sample": True, "top_k": 64, "top_p": 0.95, "transformers_version": "4.50.0.dev0"}
    ends = {"bos_token_id": 2, "eos_token_id": [1, ids["<end_of_turn>"]], "pad_token_id": 0}
    write(folder / "generation_config.json", {**ends, **sampling})
    side = TOWER["image_size"]
    pixels = {
        "do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5] * 3, "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": 4, "image_std": [0.5] * 3,
        "pan_and_scan_max_num_crops": None, "pan_and_scan_min_crop_size": None, "pan_and_scan_min_ratio_to_activate": None,
        "processor_class": "Gemma3Processor", "resample": 2, "rescale_factor": RESCALED, "size": {"height": side, "width": side},
    }  # fmt: skip
    write(folder / "preprocessor_config.json", pixels)
    write(folder / "processor_config.json", {"image_seq_length": 4, "processor_class": "Gemma3Processor"})
    _gemma_tokenizer(folder, {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, **ids, "<image_soft_token>": pieces})
    save(folder, Gemma3ForConditionalGeneration, config, OLD_LLAVA, 2, torch.bfloat16, tied=True)
    card(folder)


def _gemma_tokenizer(folder: Path, ids: dict[str, int]) -> None:
    of_images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    fields = {
        "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {str(number): words.entry(token, token not in GEMMA_TOKENS[:2]) for token, number in ids.items()},
        **of_images, **special, "clean_up_tokenization_spaces": False, "extra_special_tokens": of_images,
        "model_max_length": 1000000000000000019884624838656, "processor_class": "Gemma3Processor", "sp_model_kwargs": None,
        "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer", "use_default_system_prompt": False,
    }  # fmt: skip
    write(folder / "tokenizer_config.json", fields)
    write(folder / "special_tokens_map.json", {**of_images, **words.special_map(**special)})
    write(folder / "added_tokens.json", {"<image_soft_token>": ids["<image_soft_token>"]})
    template(folder, GEMMA_TEMPLATE, "chat_template.json", "tokenizer_config.json")


def medgemma(folder: Path) -> None:
    """google/medgemma-4b-it: as Gemma 3, of some months later: more fields, and the template in a file of its own (inferred)."""
    gemma3(folder, wordy=True)
    (folder / "chat_template.json").unlink()
    template(folder, GEMMA_TEMPLATE, "chat_template.jinja")
