"""Tiny untrained checkpoints in hub format, and a tiny data set with its tables: what tests of models and adaptation run on."""

import atexit
import hashlib
import io
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import BlipImageProcessor

from medbench import paths, tables
from medbench.config import ContrastiveLora
from medbench.datasets.base import Demographics
from medbench.demo.hubformat import save_processor, train_tokenizer
from medbench.demo.minimodels import build
from medbench.models import base
from medbench.models.checkpoint import Source
from medbench.models.contrastive import blip2, medclip, open_clip

torch.set_num_threads(1)  # models this small lose by more, and on shared cores they lose much
HUB = ("clip", "siglip")  # transformers' own layout, through and through
ARCHITECTURES = (*HUB, "blip2", "open-clip", "medclip")
CLASSES = ("dark", "bright")
PROMPTS: dict[str, dict[str, tuple[str, ...]]] = {
    "main": {"dark": ("a dark square",), "bright": ("a bright square", "a white square")},
    "other": {"dark": ("dim",), "bright": ("lit",)},
}
NOBODY = dict.fromkeys(Demographics._fields)  # columns of samples of which nothing is known
SIZES = {"train": 40, "val": 20, "test": 24}
RECIPE = ContrastiveLora(
    r=4, alpha=16, dropout=0.1, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01, epochs=3, batch_size=16
).model_dump(mode="json")


def checkpoint(architecture: str, folder: Path) -> Path:
    """A copy of an untrained model with tokenizer and image processor, made once a session."""
    return Path(shutil.copytree(_made(architecture), folder))


@cache
def _made(architecture: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="medbench-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kind = "siglip" if architecture == "siglip" else "clip"
    tokenizer = train_tokenizer(kind, ["a dark square", "a bright white square", "lit and dim"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if architecture in ("clip", "siglip"):
            build(architecture, tokenizer).save_pretrained(folder)  # type: ignore[arg-type]
            save_processor(architecture, tokenizer, folder)
        else:
            {"blip2": _blip2, "open-clip": _open_clip, "medclip": _medclip}[architecture](folder, len(tokenizer))
            tokenizer.save_pretrained(folder)
    return folder


def _blip2(folder: Path, words: int) -> None:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
        "initializer_range": 0.1,
    }
    qformer = {
        "vocab_size": words, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "encoder_hidden_size": 32, "use_qformer_text_input": True, "max_position_embeddings": 24,
    }  # fmt: skip
    made = blip2.skeleton(
        {"vision_config": vision, "qformer_config": qformer, "num_query_tokens": 4, "image_text_hidden_size": 16, "image_token_index": 7}
    )
    torch.nn.init.normal_(made.query_tokens, std=0.5)
    made.save_pretrained(folder)
    BlipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def _open_clip(folder: Path, words: int) -> None:
    bert = {
        "model_type": "bert",
        "vocab_size": words,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    (folder / "text").mkdir()
    (folder / "text/config.json").write_text(json.dumps({**bert, "pad_token_id": 0}))
    text = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 24}
    vision = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear", "image_size": 64}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "hf_model_name": "text"}}
    made = open_clip.skeleton({**model, "text_cfg": {**text, "hf_model_name": str(folder / "text")}})
    scaling = {"size": 64, "mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": scaling}))
    save_file({name: value.contiguous() for name, value in made.state_dict().items()}, folder / "open_clip_model.safetensors")


def _medclip(folder: Path, words: int) -> None:
    swin = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
    bert = {"vocab_size": words, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes = {"swin": swin, "bert": bert, "size": 16}
    made = medclip.skeleton(sizes)
    torch.nn.init.constant_(made.logit_scale, 2.0)
    (folder / "config.json").write_text(json.dumps(sizes))
    tensors = {original(name): value for name, value in made.state_dict().items()}
    tensors["text_model.model.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save(tensors, folder / "pytorch_model.bin")


def original(name: str) -> str:
    """A tensor's name as MedCLIP's checkpoint has it, by hand: the loader's table is what is tested."""
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


def load(architecture: str, folder: Path) -> base.Contrastive:
    """The checkpoint through the project's own loader."""
    model: base.Contrastive = base.load(Source(base.module_name("contrastive", architecture), str(folder)))
    return model


def source(architecture: str, folder: Path) -> Source:
    """The checkpoint as an adaptation gets it."""
    return Source(base.module_name("contrastive", architecture), str(folder), None, 8)


def picture(label: int, rng: np.random.Generator) -> Image.Image:
    """Noise of 40 x 48 pixels, with a bright square somewhere for class 1."""
    pixels = rng.integers(0, 160, (40, 48, 3), dtype=np.uint8)
    top, left = rng.integers(0, 24, 2)
    pixels[top : top + 16, left : left + 16] += np.uint8(label * 80)
    return Image.fromarray(pixels)


def encoded(image: Image.Image) -> bytes:
    """PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def dataset(name: str = "tiny", sizes: dict[str, int] | None = None, seed: int = 0) -> None:
    """Tables of a data set below the working directory: two samples a group, the last two samples of a split share an image."""
    rng, images = np.random.default_rng(seed), []
    for split, n in (sizes or SIZES).items():
        labels = np.arange(n) // 2 % 2
        data = [encoded(picture(int(label), rng)) for label in labels]
        data[-1], labels[-1] = data[-2], labels[-2]
        ids = [hashlib.sha256(one).hexdigest() for one in data]
        images += [
            {"image_id": image_id, "image": one, "evaluated": split != "train", "pixel_digest": image_id, "perceptual_hash": 0}
            for image_id, one in zip(ids[:-1], data[:-1], strict=True)
        ]
        frame = pl.DataFrame(
            {
                "sample_id": [f"{split}-{i}" for i in range(n)],
                "group_id": [f"{split}-{i // 2}" for i in range(n)],
                "label": labels.tolist(),
                "image_id": ids,
                **NOBODY,
            },
            schema=tables.columns(tables.SamplesDiagnosis),
        )
        tables.write(tables.SamplesDiagnosis, frame, paths.samples(name, split))
    frame = pl.DataFrame(images, schema=tables.columns(tables.Images))
    tables.write(tables.Images, frame, paths.images(name))
