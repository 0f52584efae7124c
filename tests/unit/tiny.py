"""Tiny untrained checkpoints in hub format, and a tiny data set with its tables: what tests of models and adaptation run on."""

import hashlib
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from medbench import paths, tables
from medbench.config import ContrastiveLora
from medbench.datasets.layouts import Demographics
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.tasks.diagnosis import SamplesDiagnosis
from tests.unit import checkpoints
from tests.unit.checkpoints.originals import swin_name as original  # noqa: F401

torch.set_num_threads(1)  # models this small lose by more, and on shared cores they lose much
HUB = ("clip", "siglip")  # transformers' own layout, through and through
ARCHITECTURES = (*HUB, "blip2", "open-clip", "medclip")
TRAINED = (*HUB, "blip2", *(pytest.param(name, marks=pytest.mark.full) for name in ARCHITECTURES[3:]))
"""For training: the last two see large images. tests/workflow/test_study_models.py trains adapters of all."""
PUBLISHED = {"clip": "clip", "siglip": "siglip", "blip2": "blip-2", "open-clip": "biomedclip", "medclip": "medclip"}
"""Which of the study's models stands for an architecture."""
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
    """An untrained model in the layout of one of its published checkpoints (tests.unit.checkpoints)."""
    return checkpoints.build(PUBLISHED[architecture], folder)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Of a folder whose weights are one file."""
    path = weights(folder)[0]
    found: dict[str, torch.Tensor] = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return found


def replace(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors in the same file."""
    path = weights(folder)[0]
    save_file(tensors, path, {"format": "pt"}) if path.suffix == ".safetensors" else torch.save(tensors, path)


def weights(folder: Path) -> list[Path]:
    """The files of weights, what is read first of all."""
    return sorted((path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")), key=lambda path: path.suffix == ".bin")


def load(architecture: str, folder: Path | str) -> loading.Contrastive:
    """The checkpoint, a folder or a hub id, through the project's own loader."""
    model: loading.Contrastive = loading.load(Source(loading.module_name("contrastive", architecture), str(folder)))
    return model


def source(architecture: str, folder: Path) -> Source:
    """The checkpoint as an adaptation gets it."""
    return Source(loading.module_name("contrastive", architecture), str(folder), None, 8)


def picture(label: int, rng: np.random.Generator) -> Image.Image:
    """Noise in 40 x 48 tiles of 5 pixels, with a bright square somewhere for class 1."""
    pixels = rng.integers(0, 160, (40, 48, 3), dtype=np.uint8)
    top, left = rng.integers(0, 24, 2)
    pixels[top : top + 16, left : left + 16] += np.uint8(label * 80)
    return Image.fromarray(pixels.repeat(5, axis=0).repeat(5, axis=1))  # larger than 224: MedCLIP enlarges nothing


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
            schema=tables.columns(SamplesDiagnosis),
        )
        tables.write(SamplesDiagnosis, frame, paths.samples(name, split))
    frame = pl.DataFrame(images, schema=tables.columns(tables.Images))
    tables.write(tables.Images, frame, paths.images(name))
