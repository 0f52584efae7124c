"""Tiny untrained checkpoints in hub format, and a tiny data set with its tables: what tests of models and adaptation run on."""

import atexit
import hashlib
import io
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image

from medbench import paths, tables
from medbench.adapt.base import Source
from medbench.config import ContrastiveLora
from medbench.datasets.base import Demographics
from medbench.demo.hubformat import save_processor, train_tokenizer
from medbench.demo.minimodels import build
from medbench.models import base

torch.set_num_threads(1)  # models this small lose by more, and on shared cores they lose much
ARCHITECTURES = ("clip", "siglip")
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
    tokenizer = train_tokenizer(architecture, ["a dark square", "a bright white square", "lit and dim"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build(architecture, tokenizer).save_pretrained(folder)  # type: ignore[arg-type]
    save_processor(architecture, tokenizer, folder)
    return folder


def load(architecture: str, folder: Path) -> base.Contrastive:
    """The checkpoint through the project's own loader."""
    model: base.Contrastive = base.load(base.module_name("contrastive", architecture), str(folder), None)
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
