"""CLIP, PubMedCLIP, PLIP, SigLIP, MedSigLIP, BLIP-2: tiny, untrained, in all else as their repositories are.

*Evidence* is a public copy of the file, public code that names it, or a count in MODELS-2.md; *inferred* is what the conversion scripts and
transformers 4 write.
"""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import Blip2Config, Blip2ForImageTextRetrieval, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from medbench.demo.minimodels import PATCH_GAIN
from tests.unit.checkpoints import words
from tests.unit.checkpoints.layout import WORDY, card, pickled, safetensors, write
from tests.unit.checkpoints.words import special_map

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
RESCALED = 0.00392156862745098
VISION: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
}  # fmt: skip
TEXT: dict[str, Any] = {**VISION, "num_hidden_layers": 1, "max_position_embeddings": 77}
del TEXT["image_size"], TEXT["patch_size"]


def clip_config(vocabulary: int, vision: dict[str, Any], version: str, **more: Any) -> dict[str, Any]:
    """A wordy configuration of 4.x. Its `eos_token_id` 2 is not the tokenizer's (evidence): models of that time pool at the largest id."""
    common = {
        **WORDY, "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "quick_gelu", "initializer_factor": 1.0,
        "initializer_range": 0.02, "layer_norm_eps": 1e-05, "projection_dim": 64, "transformers_version": version,
    }  # fmt: skip
    text = {**common, **TEXT, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "model_type": "clip_text_model"}
    return {
        "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592, "model_type": "clip",
        "projection_dim": 64, "text_config": {**text, "vocab_size": vocabulary}, "text_config_dict": None,
        "transformers_version": None, "vision_config": {**common, **vision, "model_type": "clip_vision_model"},
        "vision_config_dict": None, **more,
    }  # fmt: skip


def clip_tokenizer(folder: Path) -> int:
    """Five files. tokenizer_config.json in the form of 4.16, with `__type` (evidence: a public copy of it)."""
    size = words.clip(folder)
    begin, end = ({**words.entry(token, normalized=True), "__type": "AddedToken"} for token in ("<|startoftext|>", "<|endoftext|>"))
    for one in (begin, end):
        del one["special"]
    fields = {
        "unk_token": end, "bos_token": begin, "eos_token": end, "pad_token": "<|endoftext|>", "add_prefix_space": False,
        "errors": "replace", "do_lower_case": True, "name_or_path": "./clip_ViT_B_32/", "model_max_length": 77,
    }  # fmt: skip
    write(folder / "tokenizer_config.json", fields)
    named = special_map(bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    write(folder / "special_tokens_map.json", {**named, "pad_token": "<|endoftext|>"})
    return size


def legacy_pixels(side: int) -> dict[str, Any]:
    """preprocessor_config.json of early 2022 (evidence: rebuilt to the published SHA-256)."""
    return {
        "crop_size": side, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "resample": 3, "size": side,
    }  # fmt: skip


def feature_extractor_pixels(side: int) -> dict[str, Any]:
    """preprocessor_config.json of late 2022, whose type is no longer one (evidence for the form: a public copy of a checkpoint of then)."""
    return {
        **legacy_pixels(side), "crop_size": {"height": side, "width": side}, "do_convert_rgb": True, "do_rescale": True,
        "image_processor_type": "CLIPFeatureExtractor", "rescale_factor": RESCALED, "size": {"shortest_edge": side},
    }  # fmt: skip


def _clip(folder: Path, config: dict[str, Any], pixels: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Configuration and processor into the folder; gives the weights, with the two buffers that 4.x saved."""
    write(folder / "config.json", config)
    write(folder / "preprocessor_config.json", pixels)
    state: dict[str, torch.Tensor] = dict(CLIPModel(CLIPConfig(**config)).state_dict())
    patches = (VISION["image_size"] // VISION["patch_size"]) ** 2 + 1
    state["text_model.embeddings.position_ids"] = torch.arange(TEXT["max_position_embeddings"])[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(patches)[None]
    return state


def clip(folder: Path) -> None:
    """openai/clip-vit-base-patch32 at its main commit: no safetensors there (evidence: caches that hold both; see `clip_converted`)."""
    config = clip_config(clip_tokenizer(folder), VISION, "4.16.0.dev0")
    pickled(folder / "pytorch_model.bin", _clip(folder, config, legacy_pixels(VISION["image_size"])))
    card(folder, "flax_model.msgpack", "tf_model.h5")


def clip_converted(folder: Path) -> None:
    """Its commit c237dc4 of a pull request, which adds model.safetensors and is what transformers itself fetches (evidence)."""
    clip(folder)
    safetensors(folder, torch.load(folder / "pytorch_model.bin", weights_only=True))


def pubmedclip(folder: Path) -> None:
    """flaviagiammarino/pubmed-clip-vit-base-patch32: a pickle, no safetensors (evidence). The list of the other files is inferred."""
    config = clip_config(clip_tokenizer(folder), VISION, "4.25.1", torch_dtype="float32", _name_or_path="openai/clip-vit-base-patch32")
    pickled(folder / "pytorch_model.bin", _clip(folder, config, legacy_pixels(VISION["image_size"])))
    card(folder, "flax_model.msgpack", "tf_model.h5")


def plip(folder: Path) -> None:
    """vinid/plip, of early 2023. Its preprocessor is not settled: this is the form that newer versions refuse (inferred)."""
    config = clip_config(clip_tokenizer(folder), VISION, "4.24.0", torch_dtype="float32", _name_or_path="openai/clip-vit-base-patch32")
    pickled(folder / "pytorch_model.bin", _clip(folder, config, feature_extractor_pixels(VISION["image_size"])))
    card(folder)


def plip_legacy(folder: Path) -> None:
    """The other form that PLIP's preprocessor may have."""
    plip(folder)
    write(folder / "preprocessor_config.json", legacy_pixels(VISION["image_size"]))


def siglip_pixels(side: int) -> dict[str, Any]:
    """preprocessor_config.json of SigLIP: squashed to a square (evidence)."""
    return {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
        "image_processor_type": "SiglipImageProcessor", "image_std": [0.5] * 3, "processor_class": "SiglipProcessor", "resample": 3,
        "rescale_factor": RESCALED, "size": {"height": side, "width": side},
    }  # fmt: skip


def siglip(folder: Path, size: int = 64, patch: int = 8) -> None:
    """google/siglip-base-patch16-224: safetensors, spiece.model (evidence); terse configurations (inferred)."""
    vision = {**VISION, "image_size": size, "patch_size": patch}
    text = {**TEXT, "max_position_embeddings": 64, "vocab_size": words.siglip(folder), "projection_size": VISION["hidden_size"]}
    config = {
        "architectures": ["SiglipModel"], "initializer_factor": 1.0, "model_type": "siglip",
        "text_config": {**text, "model_type": "siglip_text_model"}, "torch_dtype": "float32", "transformers_version": "4.37.0.dev0",
        "vision_config": {**vision, "model_type": "siglip_vision_model"},
    }  # fmt: skip
    write(folder / "config.json", config)
    write(folder / "preprocessor_config.json", siglip_pixels(size))
    fields = {
        "added_tokens_decoder": {"1": words.entry("</s>", normalized=True), "2": words.entry("<unk>", normalized=True)},
        "additional_special_tokens": [], "clean_up_tokenization_spaces": True, "do_lower_case": True, "eos_token": "</s>",
        "model_input_names": ["input_ids"], "model_max_length": 64, "pad_token": "</s>", "processor_class": "SiglipProcessor",
        "sp_model_kwargs": {}, "tokenizer_class": "SiglipTokenizer", "unk_token": "<unk>",
    }  # fmt: skip
    write(folder / "tokenizer_config.json", fields)
    write(folder / "special_tokens_map.json", special_map(eos_token="</s>", pad_token="</s>", unk_token="<unk>"))
    made = SiglipModel(SiglipConfig(**config))
    with torch.no_grad():
        made.logit_scale.fill_(math.log(10))
        made.logit_bias.fill_(-2.0)
        made.vision_model.embeddings.patch_embedding.weight.mul_(PATCH_GAIN)
    safetensors(folder, made.state_dict())
    card(folder)


def medsiglip(folder: Path) -> None:
    """google/medsiglip-448: as SigLIP, with patches of 14 pixels (evidence)."""
    siglip(folder, size=56, patch=14)


def blip2(folder: Path) -> None:
    """Salesforce/blip2-itm-vit-g: ten files of 9,473,140,308 bytes (evidence), so both formats, each in one file: shards would be more.

    One of the ten may be tokenizer.json instead of added_tokens.json: the conversion script saves the slow BertTokenizer (inferred).
    """
    vocabulary = words.wordpiece(folder, ("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    vision = {
        **WORDY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
        "patch_size": 16, "model_type": "blip_2_vision_model", "qkv_bias": True, "layer_norm_eps": 1e-06, "hidden_act": "gelu",
        "attention_dropout": 0.0, "initializer_range": 1e-10,
    }  # fmt: skip
    qformer = {
        **WORDY, "vocab_size": vocabulary + 1, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "encoder_hidden_size": 32, "use_qformer_text_input": True, "cross_attention_frequency": 2,
        "max_position_embeddings": 512, "model_type": "blip_2_qformer", "pad_token_id": 0, "position_embedding_type": "absolute",
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
    }  # fmt: skip
    config = {  # `image_token_index` is not settled: the form that makes the stock class cut off text
        "architectures": ["Blip2ForImageTextRetrieval"], "image_text_hidden_size": 16, "image_token_index": vocabulary,
        "initializer_factor": 1.0, "initializer_range": 0.02, "model_type": "blip-2", "num_query_tokens": 4, "qformer_config": qformer,
        "text_config": {"model_type": "opt"}, "torch_dtype": "float32", "transformers_version": "4.45.0.dev0",
        "use_decoder_only_language_model": True, "vision_config": vision,
    }  # fmt: skip
    write(folder / "config.json", config)
    pixels = {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": CLIP_MEAN,
        "image_processor_type": "BlipImageProcessor", "image_std": CLIP_STD, "processor_class": "Blip2Processor", "resample": 3,
        "rescale_factor": RESCALED, "size": {"height": 64, "width": 64},
    }  # fmt: skip
    write(folder / "preprocessor_config.json", pixels)
    decoder = {str(number): words.entry(token) for token, number in (("[PAD]", 0), ("[UNK]", 2), ("[CLS]", 3), ("[SEP]", 4), ("[MASK]", 5))}
    fields = {
        "added_tokens_decoder": {**decoder, str(vocabulary): words.entry("[DEC]")}, "bos_token": "[DEC]",
        "clean_up_tokenization_spaces": True, "cls_token": "[CLS]", "do_basic_tokenize": True, "do_lower_case": True,
        "mask_token": "[MASK]", "model_max_length": 512, "never_split": None, "pad_token": "[PAD]", "processor_class": "Blip2Processor",
        "sep_token": "[SEP]", "strip_accents": None, "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer",
        "truncation_side": "right", "unk_token": "[UNK]",
    }  # fmt: skip
    write(folder / "tokenizer_config.json", fields)
    write(folder / "added_tokens.json", {"[DEC]": vocabulary})
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "mask", "pad", "sep", "unk")}
    write(folder / "special_tokens_map.json", {"bos_token": "[DEC]", **named})
    made = Blip2ForImageTextRetrieval(Blip2Config(**{**config, "vision_config": {**vision, "initializer_range": 0.1}}))
    torch.nn.init.normal_(made.query_tokens, std=0.5)
    safetensors(folder, made.state_dict())
    pickled(folder / "pytorch_model.bin", made.state_dict())
    card(folder)
