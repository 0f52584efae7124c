"""VILA-1.5 and VILA-M3: a folder for each part. *Evidence* and *inferred* as in `contrastive`."""

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

from tests.unit.checkpoints import contrastive, words
from tests.unit.checkpoints.layout import WORDY, card, randomise, renamed, safetensors, write
from tests.unit.checkpoints.originals import DECODER, TOWER

LLAMA_3 = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{n}|>" for n in range(4)), "<|start_header_id|>"]
LLAMA_3 += ["<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>", "<|reserved_special_token_5|>"]


def vila(folder: Path, adds_bos: bool = False) -> None:
    """Efficient-Large-Model/Llama-3-VILA1.5-8B: a folder for each part, each with its own names; the tower with its head (evidence).

    `[PAD]` follows Llama 3's tokens, since the training code adds it where there is no unknown token (evidence: code). Whether the
    tokenizer itself writes the first token is not settled: `adds_bos`. The configuration's form is that of a public copy of the 3B's.
    """
    llm, tower, projector = folder / "llm", folder / "vision_tower", folder / "mm_projector"
    ids = words.llama_3(llm, [*LLAMA_3, "[PAD]"], "<|begin_of_text|>" if adds_bos else None)
    llm_config = {
        **WORDY, "_name_or_path": "./llm", "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        **DECODER, "bos_token_id": ids["<|begin_of_text|>"], "eos_token_id": ids["<|end_of_text|>"], "hidden_act": "silu",
        "initializer_range": 0.02,
        "model_max_length": 4096, "model_type": "llama", "pad_token_id": ids["[PAD]"], "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 500000.0, "tie_word_embeddings": False, "tokenizer_model_max_length": 4096,
        "tokenizer_padding_side": "right", "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": ids["[PAD]"] + 1,
    }  # fmt: skip
    vision = {**TOWER, "image_size": 70}  # five by five patches, so that the projector pads, as at 27 by 27
    tower_config = {
        **WORDY, "_name_or_path": "./vision_tower", "architectures": ["SiglipVisionModel"], "attention_dropout": 0.0,
        "hidden_act": "gelu_pytorch_tanh", **vision, "layer_norm_eps": 1e-06, "model_type": "siglip_vision_model", "num_channels": 3,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    projector_config = {
        **WORDY, "_name_or_path": "./mm_projector", "architectures": ["MultimodalProjector"], "mm_projector_type": "mlp_downsample",
        "model_type": "v2l_projector", "torch_dtype": "bfloat16",
    }  # fmt: skip
    top = {
        "_name_or_path": "./vlm", "architectures": ["LlavaLlamaModel"], "drop_path_rate": 0.0, "hidden_size": DECODER["hidden_size"],
        "image_aspect_ratio": "resize", "interpolate_mode": "linear", "llm_cfg": llm_config, "mm_hidden_size": vision["hidden_size"],
        "mm_projector_cfg": projector_config, "mm_projector_lr": None, "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
        "mm_vision_select_feature": "cls_patch", "mm_vision_select_layer": -2, "model_dtype": "torch.bfloat16", "model_type": "llava_llama",
        "num_video_frames": 8, "resume_path": "./vlm", "s2": False, "s2_max_split_size": 336, "s2_scales": "336,672,1008",
        "transformers_version": "4.36.2", "tune_language_model": True, "tune_mm_projector": True, "tune_vision_tower": True,
        "vision_resolution": -1, "vision_tower_cfg": tower_config,
    }  # fmt: skip
    write(folder / "config.json", top)
    for part, fields in ((llm, llm_config), (tower, tower_config), (projector, projector_config)):
        write(part / "config.json", {**fields, "transformers_version": "4.36.2"})
    _vila_processors(llm, tower, ids, vision["image_size"])
    _vila_weights(llm, tower, projector, llm_config, tower_config)
    card(folder)


def vila_m3(folder: Path) -> None:
    """MONAI/Llama3-VILA-M3-8B: of the same code; here with a tokenizer that writes the first token itself."""
    vila(folder, adds_bos=True)


def _vila_processors(llm: Path, tower: Path, ids: dict[str, int], side: int) -> None:
    fields = {
        "added_tokens_decoder": {str(number): words.entry(token) for token, number in ids.items()}, "bos_token": "<|begin_of_text|>",
        "clean_up_tokenization_spaces": True, "eos_token": "<|end_of_text|>", "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 4096, "pad_token": "[PAD]", "padding_side": "right", "tokenizer_class": "PreTrainedTokenizerFast",
    }  # fmt: skip
    write(llm / "tokenizer_config.json", fields)
    named = words.special_map(bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>", pad_token="[PAD]")
    write(llm / "special_tokens_map.json", named)
    write(tower / "preprocessor_config.json", contrastive.siglip_pixels(side))


def _vila_weights(llm: Path, tower: Path, projector: Path, llm_config: dict[str, Any], tower_config: dict[str, Any]) -> None:
    begin, end = llm_config["bos_token_id"], llm_config["eos_token_id"]
    ends = {"bos_token_id": begin, "eos_token_id": end}
    write(llm / "generation_config.json", {**ends, "do_sample": True, "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.36.2"})
    own = {name: value for name, value in llm_config.items() if name not in WORDY}
    decoder = LlamaForCausalLM(LlamaConfig(**own, **ends, pad_token_id=llm_config["pad_token_id"], tie_word_embeddings=False))
    vision = SiglipVisionModel(SiglipVisionConfig(**{name: value for name, value in tower_config.items() if name not in WORDY}))
    wide, hidden = 4 * tower_config["hidden_size"], llm_config["hidden_size"]
    joined = (
        torch.nn.Identity(),
        torch.nn.LayerNorm(wide),
        torch.nn.Linear(wide, hidden),
        torch.nn.GELU(),
        torch.nn.Linear(hidden, hidden),
    )
    layers = torch.nn.Sequential(*joined)
    for part in (decoder, layers):
        randomise(part)
    safetensors(llm, renamed(decoder, {"": ""}, torch.bfloat16), shards=4)
    safetensors(tower, renamed(vision, {"": "vision_model."}, torch.bfloat16))
    safetensors(projector, renamed(layers, {"": "layers."}, torch.bfloat16))
