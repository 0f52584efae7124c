"""An adapted vision tower with a linear head, or with the class prompts in its place: how it is built, saved and read back.

Used by training and by `predict` alike.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import normalize

from medbench.errors import MedbenchError
from medbench.jobs import lazy
from medbench.jobs.microbatching import Microbatching
from medbench.models.checkpoint import require_weights
from medbench.models.loading import Contrastive

_ADAPTER = "lora_"  # in the name of every tensor that peft adds
_ABOUT = "medbench"  # key of the description in the file's metadata
_WRAPPED = ".base_layer"  # what peft puts into the name of a layer it wraps


class Classifier(nn.Module):
    """Normalised pixels [n, 3, h, w] -> class logits [n, k]. The head reads features standardised by training statistics,
    since models differ in the scale of their features by orders of magnitude and share one learning rate."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, model: Contrastive, n_features: int, k: int) -> None:
        super().__init__()
        self.contrastive = model
        self.tower = model.vision  # registered, so that train() and eval() reach its dropout
        self._head(model, n_features, k)

    def _head(self, model: Contrastive, n_features: int, k: int) -> None:
        self.head = nn.Linear(n_features, k, device=model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.zeros(n_features, device=model.device))
        self.register_buffer("deviation", torch.ones(n_features, device=model.device))

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [n, d] float32; bfloat16 inside on a GPU."""
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
            return self.contrastive.encode_images(pixels).features.float()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head((self.features(pixels) - self.mean) / self.deviation)
        return logits

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, q, e] float32; bfloat16 inside on a GPU."""
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
            return self.contrastive.encode_images(pixels).embeddings.float()

    def adapters(self) -> dict[str, torch.Tensor]:
        """LoRA tensors by name."""
        return {f"tower.{name}": value for name, value in self.tower.named_parameters() if _ADAPTER in name}

    def trainable(self) -> dict[str, torch.Tensor]:
        """LoRA tensors and the head by name."""
        return {**self.adapters(), "head.weight": self.head.weight, "head.bias": self.head.bias}

    def saved(self) -> dict[str, torch.Tensor]:
        """All that prediction needs beside the checkpoint, by name."""
        return {**self.trainable(), "head.mean": self.mean, "head.deviation": self.deviation}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `saved` gave."""
        for name, value in self.saved().items():
            value.copy_(tensors[name])

    @torch.no_grad()
    def standardise(self, batches: Iterable[NDArray[np.uint8]], microbatching: Microbatching) -> None:
        """Take mean and deviation of the features from these pixels."""
        self.eval()
        features = torch.cat(
            [part for batch in batches for part in microbatching.run(batch, lambda some: self.features(self.contrastive.to_device(some)))]
        )
        deviation, mean = torch.std_mean(features, dim=0, correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def logits(self, batches: Iterable[NDArray[np.uint8]], microbatching: Microbatching) -> NDArray[np.float32]:
        """Class logits [n, k] of bytes [n, 3, h, w], in evaluation mode, computed in parts that fit."""
        self.eval()
        with torch.inference_mode():
            made = [part for batch in batches for part in microbatching.run(batch, lambda some: self(self.contrastive.to_device(some)))]
            return torch.cat(made).cpu().numpy()


class TextClassifier(Classifier):
    """The class prompts are the head, and stay as they are: zero-shot classification itself is tuned."""

    texts: torch.Tensor

    def _head(self, model: Contrastive, n_features: int, k: int) -> None:
        """`n_features`: of the embeddings."""
        self.register_buffer("texts", torch.zeros(k, n_features, device=model.device))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale times the best cosine over the queries, plus bias."""
        cosine = normalize(self.encode(pixels), dim=-1) @ self.texts.T
        return self.contrastive.scale * cosine.amax(dim=1) + self.contrastive.bias

    def trainable(self) -> dict[str, torch.Tensor]:
        """LoRA tensors by name."""
        return self.adapters()

    def saved(self) -> dict[str, torch.Tensor]:
        """Those and the prompts' embeddings."""
        return {**self.adapters(), "texts": self.texts}


def build(model: Contrastive, n_features: int, k: int, r: int, alpha: int, dropout: float, text: bool = False) -> Classifier:
    """Put untrained adapters into a loaded model and a zero head on it; with `text`, zero prompts.

    Raises MedbenchError when the architecture's target names match no layer.
    """
    try:
        with lazy.bitsandbytes_where_used():
            from peft import LoraConfig, inject_adapter_in_model

            config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=model.lora_targets)
            inject_adapter_in_model(config, model.vision)
    except ValueError as error:
        found = f"no layer of the vision tower fits lora_targets {model.lora_targets!r} ({str(error).split('.')[0]})"
        raise MedbenchError(f"architecture {type(model).__name__}", found, "fix its file") from None
    return (TextClassifier if text else Classifier)(model, n_features, k)


def frozen_digest(model: Contrastive) -> str:
    """SHA-256 over every tensor of the model that is no adapter, in the order of their names without peft's additions."""
    found = hashlib.sha256()
    for name, value in sorted(
        (name.replace(_WRAPPED, ""), value) for name, value in model.model.state_dict().items() if _ADAPTER not in name
    ):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


class Description(NamedTuple):
    """What a saved adapter says of itself beside the tensors."""

    r: int
    alpha: int
    module: str
    checkpoint: str | None
    revision: str | None
    weights: Mapping[str, str]  # what was loaded from there
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    epoch: int


def save(classifier: Classifier, path: Path, description: Description) -> None:
    """Adapters and head as one safetensors file with the description as its metadata."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in classifier.saved().items()}
    save_file(tensors, path, {_ABOUT: json.dumps(description._asdict(), sort_keys=True)})  # one key: the order of several is random


def missing(path: Path, classifier: Classifier) -> list[str]:
    """Names of the tensors that prediction needs and the file lacks."""
    with safe_open(path, "pt") as file:
        return sorted(set(classifier.saved()) - set(file.keys()))


def read(path: Path, model: Contrastive) -> Classifier:
    """The classifier of a saved adapter on a freshly loaded model.

    Raises MedbenchError when the file is absent, damaged, or not of this model and these weights.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            about = json.loads(file.metadata()[_ABOUT])
        require_weights(path, about["weights"], model.weights)
        text = "texts" in tensors
        k, n_features = tensors["texts" if text else "head.weight"].shape
        classifier = build(model, n_features, k, about["r"], about["alpha"], dropout=0.0, text=text)
        expected = {name: value.shape for name, value in classifier.saved().items()}
        if expected != {name: value.shape for name, value in tensors.items()}:
            raise MedbenchError(path, "holds other tensors than this model's adapter", "delete it and run `adapt` again")
    except FileNotFoundError:
        raise MedbenchError(path, "the file does not exist", f"run `snakemake --cores all {path}`") from None
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise MedbenchError(path, f"is no adapter ({error!r})", "delete it and run `adapt` again") from None
    classifier.restore(tensors)
    return classifier
