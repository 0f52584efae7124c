"""Tiny untrained checkpoints of the generative families in hub format. Holds no test."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ImageProcessor,
    Gemma3Processor,
    GenerationConfig,
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
)

from medbench.demo import minillava
from medbench.models.generative import gemma3, internvl, llava_med, qwen2_5_vl, qwen2_vl, vila
from tests.unit import asked

FAMILIES = ("qwen2-vl", "qwen2-5-vl", "internvl", "gemma3", "llava-med", "vila")
ALL = ("llava", *FAMILIES)
TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "initializer_range": 0.2,
}  # fmt: skip
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ IMAGE }}{% else %}{{ content['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' }}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ content['text'] }}{% endif %}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def checkpoint(family: str, folder: Path) -> Path:
    """A copy of an untrained model with its processor, made once a session."""
    return asked.checkpoint(folder) if family == "llava" else Path(shutil.copytree(_made(family), folder))


@cache
def _made(family: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="medbench-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make = {
            "qwen2-vl": _qwen2, "qwen2-5-vl": _qwen2_5, "internvl": _internvl, "gemma3": _gemma3, "llava-med": _llava_med, "vila": _vila,
        }  # fmt: skip
        make[family](folder)
    return folder


def _tokenizer(specials: list[str], pad: str | None = "<pad>", **named: Any) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    core.train_from_iterator(sorted(minillava.texts()), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=512, pad_token=pad, **named)


def _qwen_parts() -> tuple[PreTrainedTokenizerFast, dict[str, Any], dict[str, int]]:
    specials = ["<pad>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(specials, eos_token="<|im_end|>")
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in (
        ("image_token_id", "<|image_pad|>"), ("video_token_id", "<|video_pad|>"), ("vision_start_token_id", "<|vision_start|>"),
        ("vision_end_token_id", "<|vision_end|>"),
    )}  # fmt: skip
    text = {
        **TEXT, "vocab_size": len(tokenizer), "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"},
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
    }  # fmt: skip
    return tokenizer, text, ids


def _save_qwen(model: Any, processor_class: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    _save(model, tokenizer, tokenizer.eos_token_id, folder)
    sizes = {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}
    images = Qwen2VLImageProcessor(size=sizes, patch_size=14, merge_size=2)
    videos = Qwen2VLVideoProcessor(size=sizes, patch_size=14, merge_size=2)
    template = CHATML.replace("IMAGE", "'<|vision_start|><|image_pad|><|vision_end|>'")
    processor_class(images, tokenizer, videos, chat_template=template).save_pretrained(folder)


def _save(model: Any, tokenizer: PreTrainedTokenizerFast, end: Any, folder: Path) -> None:
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id)
    model.save_pretrained(folder)


def _qwen2(folder: Path) -> None:
    tokenizer, text, ids = _qwen_parts()
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14, "initializer_range": 0.2}
    made = qwen2_vl.skeleton({"text_config": text, "vision_config": vision, "tie_word_embeddings": False, **ids})
    _save_qwen(made, Qwen2VLProcessor, tokenizer, folder)


def _qwen2_5(folder: Path) -> None:
    tokenizer, text, ids = _qwen_parts()
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_heads": 2, "patch_size": 14,
        "fullatt_block_indexes": [1], "window_size": 56, "initializer_range": 0.2,
    }  # fmt: skip
    made = qwen2_5_vl.skeleton({"text_config": text, "vision_config": vision, "tie_word_embeddings": False, **ids})
    _save_qwen(made, Qwen2_5_VLProcessor, tokenizer, folder)


def _internvl(folder: Path) -> None:
    specials = ["<pad>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = _tokenizer(specials, eos_token="<|im_end|>", extra_special_tokens=named)
    text = {**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": [56, 56],
        "patch_size": [14, 14], "initializer_range": 0.2,
    }  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    made = internvl.skeleton({"text_config": text, "vision_config": vision, "image_token_id": image, "downsample_ratio": 0.5})
    _save(made, tokenizer, tokenizer.eos_token_id, folder)
    images = GotOcr2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=12)
    template = CHATML.replace("IMAGE", "'<IMG_CONTEXT>\n'")
    InternVLProcessor(images, tokenizer, InternVLVideoProcessor(), image_seq_length=4, chat_template=template).save_pretrained(folder)


def _gemma3(folder: Path) -> None:
    specials = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = _tokenizer(specials, eos_token="<eos>", bos_token="<bos>", extra_special_tokens=named)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in (
        ("image_token_index", "<image_soft_token>"), ("boi_token_index", "<start_of_image>"), ("eoi_token_index", "<end_of_image>"),
    )}  # fmt: skip
    text = {
        **TEXT,
        "vocab_size": len(tokenizer),
        "head_dim": 8,
        "sliding_window": 64,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": 2,
    }
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 56, "patch_size": 14, "vision_use_head": False,
    }  # fmt: skip
    made = gemma3.skeleton({"text_config": text, "vision_config": vision, "mm_tokens_per_image": 4, **ids})
    torch.nn.init.normal_(made.model.multi_modal_projector.mm_input_projection_weight, std=0.2)
    _save(made, tokenizer, [1, 4], folder)
    images = Gemma3ImageProcessor(size={"height": 56, "width": 56})
    Gemma3Processor(images, tokenizer, chat_template=GEMMA, image_seq_length=4).save_pretrained(folder)


def _llava_med(folder: Path) -> None:
    """In the original layout and under the original names, by hand: the loader's table is what is tested."""
    tokenizer = _tokenizer(["<pad>", "<unk>", "<s>", "</s>"], eos_token="</s>", bos_token="<s>")
    words = len(tokenizer)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    (folder / "tower").mkdir()
    (folder / "tower/config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    config = {**TEXT, "vocab_size": words, "mm_vision_tower": "tower", "mm_vision_select_layer": -2, "rope_theta": 1_000_000.0}
    made = llava_med.skeleton({**config, "vision": vision})
    tensors = {original(name): value.contiguous() for name, value in made.state_dict().items()}
    half = len(tensors) // 2
    names = sorted(tensors)
    for number, part in enumerate((names[:half], names[half:]), start=1):
        save_file({name: tensors[name] for name in part}, folder / f"model-{number:05d}-of-00002.safetensors")
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llava_mistral", **config}))


def _vila(folder: Path) -> None:
    """In the original layout: a folder for each part, each with its own names. Five by five patches, so that the projector pads."""
    specials = ["<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _tokenizer(specials, pad=None, eos_token="<|end_of_text|>", bos_token="<|begin_of_text|>")
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
        "image_size": 70, "patch_size": 14,
    }  # fmt: skip
    config = {
        "model_type": "llava_llama", "mm_vision_select_layer": -2, "mm_vision_select_feature": "cls_patch", "s2": False,
        "llm_cfg": {**TEXT, "model_type": "llama", "vocab_size": len(tokenizer), "rope_theta": 500_000.0},
        "vision_tower_cfg": vision, "mm_projector_cfg": {"model_type": "v2l_projector", "mm_projector_type": "mlp_downsample"},
    }  # fmt: skip
    made = vila.skeleton(config)
    for value in made.model.multi_modal_projector.parameters():
        torch.nn.init.normal_(value, std=0.2)
    own = {"model.vision_tower.": ("vision_tower", "vision_model."), "model.multi_modal_projector.": ("mm_projector", "")}
    own |= {"model.language_model.": ("llm", "model."), "lm_head.": ("llm", "lm_head.")}
    tensors: dict[str, dict[str, torch.Tensor]] = {part: {} for part in vila.PARTS}
    for name, value in made.state_dict().items():
        start = next(start for start in own if name.startswith(start))
        part, front = own[start]
        tensors[part][name.replace(start, front, 1)] = value.contiguous()
    for part, found in tensors.items():
        (folder / part).mkdir()
        save_file(found, folder / part / "model.safetensors")
        (folder / part / "config.json").write_text(json.dumps(config[f"{part}_cfg"]))
    tokenizer.save_pretrained(folder / "llm")
    SiglipImageProcessor(size={"height": 70, "width": 70}).save_pretrained(folder / "vision_tower")
    (folder / "config.json").write_text(json.dumps(config))


def original(name: str) -> str:
    """A tensor's name in LLaVA-Med's own checkpoint."""
    for new, old in (
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("model.language_model.", "model."),
    ):
        if name.startswith(new):
            return name.replace(new, old, 1)
    return name
