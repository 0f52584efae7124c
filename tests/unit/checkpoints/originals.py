"""MedCLIP, BioMedCLIP, LLaVA-Med: checkpoints of their authors' own code, and the second repositories that they name.

Names of tensors are changed by hand: the loaders' own tables are what is tested. *Evidence* and *inferred* as in `contrastive`.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CustomTextCLIP
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    MistralConfig,
    MistralForCausalLM,
)

from medbench.models.contrastive import medclip as medclip_module
from tests.unit.checkpoints import contrastive, words
from tests.unit.checkpoints.layout import card, pickled, randomise, renamed, safetensors, write

BERT: dict[str, Any] = {
    "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 64, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "model_type": "bert", "num_attention_heads": 2, "num_hidden_layers": 2, "type_vocab_size": 2,
}  # fmt: skip
PUBMED, CASED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), ("[PAD]", "[unused1]", "[unused2]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DECODER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
}  # fmt: skip


def medclip(folder: Path) -> None:
    """The zip's one file, pytorch_model.bin (evidence). config.json is the project's own way to say that a checkpoint is smaller."""
    sizes = {
        "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
        "bert": {
            "vocab_size": words.size(CASED, lower=False), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
            "num_attention_heads": 2,
        },
        "size": 16,
    }  # fmt: skip
    write(folder / "config.json", sizes)
    made = medclip_module.skeleton(sizes)
    torch.nn.init.constant_(made.logit_scale, 2.0)
    tensors = {swin_name(name): value for name, value in made.state_dict().items()}
    tensors["text_model.model.embeddings.position_ids"] = torch.arange(512)[None]
    for name in [name for name in tensors if name.endswith("relative_position_bias_table")]:
        tensors[name.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.int64)
    pickled(folder / "pytorch_model.bin", tensors)


def swin_name(name: str) -> str:
    """A tensor's name as MedCLIP's checkpoint has it, of transformers 4."""
    if not name.startswith("vision_model.model.encoder."):
        return name
    for new, old in (
        (".attention.q_proj.", ".attention.self.query."), (".attention.k_proj.", ".attention.self.key."),
        (".attention.v_proj.", ".attention.self.value."), (".attention.o_proj.", ".attention.output.dense."),
        (".attention.relative_position_bias.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
        (".mlp.fc1.", ".intermediate.dense."), (".mlp.fc2.", ".output.dense."),
    ):  # fmt: skip
        name = name.replace(new, old)
    return name


def medclip_zip(path: Path, folder: Path) -> None:
    """medclip-vit-pretrained.zip of a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)


def clinical_bert(folder: Path) -> None:
    """emilyalsentzer/Bio_ClinicalBERT: config.json and vocab.txt, no other file of a tokenizer (evidence). Cased, read lower-cased."""
    size = words.wordpiece(folder, CASED, lower=False)
    config = {**BERT, "vocab_size": size}
    del config["architectures"]  # of pytorch-pretrained-bert's time (inferred)
    write(folder / "config.json", config)
    card(folder, "flax_model.msgpack", "graph.pbtxt", "pytorch_model.bin", "tf_model.h5")


def biomed_bert(folder: Path) -> None:
    """microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract: BioMedCLIP names it for its configuration (evidence)."""
    write(folder / "config.json", {**BERT, "pad_token_id": 0, "vocab_size": words.wordpiece(folder, PUBMED)})
    write(folder / "tokenizer_config.json", {"do_lower_case": True})
    card(folder, "flax_model.msgpack", "LICENSE.md", "pytorch_model.bin")


def biomedclip(folder: Path) -> None:
    """microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224: one pickle, with the tower's `position_ids` (evidence)."""
    size = words.wordpiece(folder, PUBMED, fast=True)
    named = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    text = {"hf_model_name": named, "hf_tokenizer_name": named, "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}
    vision = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "context_length": 24}}
    scaling = {"mean": contrastive.CLIP_MEAN, "std": contrastive.CLIP_STD}  # no size: it is 224 by default
    write(folder / "open_clip_config.json", {"model_cfg": model, "preprocess_cfg": scaling})
    bert = folder / "bert"
    write(bert / "config.json", {**BERT, "pad_token_id": 0, "vocab_size": size})
    made = CustomTextCLIP(**{**model, "text_cfg": {**model["text_cfg"], "hf_model_name": str(bert), "hf_model_pretrained": False}})
    (bert / "config.json").unlink()
    bert.rmdir()
    tensors = {**made.state_dict(), "text.transformer.embeddings.position_ids": torch.arange(512)[None]}
    pickled(folder / "open_clip_pytorch_model.bin", tensors)
    fields = {
        "cls_token": "[CLS]", "do_basic_tokenize": True, "do_lower_case": True, "mask_token": "[MASK]",
        "model_max_length": 1000000000000000019884624838656, "never_split": None, "pad_token": "[PAD]", "sep_token": "[SEP]",
        "strip_accents": None,
        "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer", "unk_token": "[UNK]",
    }  # fmt: skip
    write(folder / "tokenizer_config.json", fields)
    write(folder / "special_tokens_map.json", {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "mask", "pad", "sep", "unk")})
    card(folder)


def clip_tower(folder: Path) -> None:
    """openai/clip-vit-large-patch14-336: LLaVA-Med names it for its configuration and pixels (evidence)."""
    config = contrastive.clip_config(contrastive.clip_tokenizer(folder), TOWER, "4.21.3", torch_dtype="float32")
    write(folder / "config.json", config)
    write(folder / "preprocessor_config.json", contrastive.legacy_pixels(TOWER["image_size"]))
    card(folder, "pytorch_model.bin", "tf_model.h5")


def llava_med(folder: Path) -> None:
    """microsoft/llava-med-v1.5-mistral-7b: four shards, tokenizer.model alone, no processor (evidence)."""
    config = {
        "_name_or_path": "checkpoints/llava-med", "architectures": ["LlavaMistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "freeze_mm_mlp_adapter": False, "hidden_act": "silu", **DECODER, "image_aspect_ratio": "pad",
        "initializer_range": 0.02, "mm_hidden_size": TOWER["hidden_size"], "mm_projector_lr": None, "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False, "mm_use_im_start_end": False, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336", "model_type": "llava_mistral", "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "tokenizer_model_max_length": 2048,
        "tokenizer_padding_side": "right", "torch_dtype": "bfloat16", "transformers_version": "4.36.2", "tune_mm_mlp_adapter": False,
        "use_cache": True, "use_mm_proj": True, "vocab_size": words.llama_2(folder),
    }  # fmt: skip
    write(folder / "config.json", config)
    write(
        folder / "generation_config.json",
        {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.36.2"},
    )
    fields = {
        "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {str(number): words.entry(token) for number, token in enumerate(("<unk>", "<s>", "</s>"))},
        "additional_special_tokens": [], "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>", "legacy": True,
        "model_max_length": 2048, "pad_token": "<unk>", "padding_side": "right", "sp_model_kwargs": {},
        "spaces_between_special_tokens": False, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }  # fmt: skip
    write(folder / "tokenizer_config.json", fields)
    named = words.special_map(bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    write(folder / "special_tokens_map.json", {**named, "pad_token": "<unk>"})
    text = {name: value for name, value in config.items() if not name.startswith(("mm_", "model_type", "_name", "torch_dtype"))}
    llm, tower = MistralForCausalLM(MistralConfig(**text)), CLIPVisionModel(CLIPVisionConfig(**TOWER, hidden_act="quick_gelu"))
    projector = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Linear(32, 32))
    for part in (llm, projector):
        randomise(part)
    tensors = renamed(llm, {"": ""}, torch.bfloat16)
    tensors |= renamed(projector, {"": "model.mm_projector."}, torch.bfloat16)
    tensors |= renamed(tower, {"": "model.vision_tower.vision_tower.vision_model."}, torch.bfloat16)
    safetensors(folder, dict(sorted(tensors.items())), shards=4)
    card(folder)
