"""An adapted vision tower with a linear head, or with the class prompts in its place: how it is built, saved and read back.

Used by training and by `predict` alike.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import normalize

from medbench.adapt import peft_layout
from medbench.adapt.peft_layout import LORA, Description
from medbench.errors import MedbenchError
from medbench.jobs import lazy
from medbench.jobs.microbatching import Microbatching
from medbench.models.checkpoint import require_weights
from medbench.models.loading import Contrastive

HEAD = "head.safetensors"
"""The file of the linear head with the features' statistics, or of the class prompts in its place."""


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
        return {f"tower.{name}": value for name, value in self.tower.named_parameters() if LORA in name}

    def trainable(self) -> dict[str, torch.Tensor]:
        """LoRA tensors and the head by name."""
        return {**self.adapters(), "head.weight": self.head.weight, "head.bias": self.head.bias}

    def rest(self) -> dict[str, torch.Tensor]:
        """The head and the features' statistics by name."""
        return {"head.weight": self.head.weight, "head.bias": self.head.bias, "head.mean": self.mean, "head.deviation": self.deviation}

    def saved(self) -> dict[str, torch.Tensor]:
        """All that prediction needs beside the checkpoint, by name."""
        return {**self.adapters(), **self.rest()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `saved` gave."""
        peft_layout.copy_into(self.saved(), tensors)

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
            pieces = (piece for batch in batches for piece in self.contrastive.pieces(batch))
            made = [part for piece in pieces for part in microbatching.run(piece, lambda some: self(self.contrastive.to_device(some)))]
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

    def rest(self) -> dict[str, torch.Tensor]:
        """The prompts' embeddings."""
        return {"texts": self.texts}


def build(model: Contrastive, n_features: int, k: int, r: int, alpha: int, dropout: float, text: bool = False) -> Classifier:
    """Put untrained adapters into a loaded model and a zero head on it; with `text`, zero prompts.

    Raises MedbenchError when the architecture's target names match no layer.
    """
    try:
        with lazy.bitsandbytes_where_used():
            from peft import LoraConfig, inject_adapter_in_model

            config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=_targets(model))
            inject_adapter_in_model(config, model.model)
    except ValueError as error:
        found = f"no layer of the vision tower fits lora_targets {model.lora_targets!r} ({str(error).split('.')[0]})"
        raise MedbenchError(f"architecture {type(model).__name__}", found, "fix its file") from None
    return (TextClassifier if text else Classifier)(model, n_features, k)


def _targets(model: Contrastive) -> str:
    """Regular expression over the names of the whole model's layers: the text tower of some has layers of the same names."""
    [tower] = [name for name, module in model.model.named_modules() if module is model.vision]
    return rf"{re.escape(tower)}\.({model.lora_targets})"


def frozen_digest(model: Contrastive) -> str:
    """SHA-256 over every tensor of the model that is no adapter."""
    return peft_layout.frozen_digest(model.model.state_dict())


def save(classifier: Classifier, folder: Path, description: Description) -> None:
    """Adapters in PEFT's layout, and the head beside them."""
    peft_layout.save(classifier.contrastive.model, folder, HEAD, classifier.rest(), description)


def missing(folder: Path, classifier: Classifier) -> list[str]:
    """Names of the tensors that prediction needs and the files lack."""
    return sorted({*peft_layout.adapters(classifier.contrastive.model), *classifier.rest()} - peft_layout.names(folder, HEAD))


def read(folder: Path, model: Contrastive) -> Classifier:
    """The classifier of a saved adapter on a freshly loaded model.

    Raises MedbenchError when a file is absent, damaged, or not of this model and these weights.
    """
    saved = peft_layout.read(folder, HEAD)
    require_weights(folder, saved.description.weights, model.weights)
    text = "texts" in saved.rest
    try:
        k, n_features = saved.rest["texts" if text else "head.weight"].shape
    except (KeyError, ValueError) as error:
        raise MedbenchError(folder / HEAD, f"is no readable head ({error})", "delete it and run `adapt` again") from None
    classifier = build(model, n_features, k, saved.r, saved.alpha, dropout=0.0, text=text)
    peft_layout.require_same(folder / HEAD, classifier.rest(), saved.rest)
    peft_layout.put(folder, model.model, saved.adapters)
    peft_layout.copy_into(classifier.rest(), saved.rest)
    return classifier
