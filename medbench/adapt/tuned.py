"""A generative model with adapters on its decoder and a trained projector: built, saved and read back. Used by training and `predict`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from medbench.errors import MedbenchError
from medbench.jobs import lazy
from medbench.models.checkpoint import Source, require_weights
from medbench.models.generative_base import Generative
from medbench.models.hub import DECODER

_ADAPTER, _COPY = "lora_", "modules_to_save"
"""In the names of the tensors that peft adds: adapters, and modules that are trained whole."""
_ABOUT = "description"
_BASE = ("module", "bits")
"""What an adapter and the model that it is put into must have in common, beside the weights."""
_WRAPPED = ("base_model.model.", ".base_layer", ".original_module")
"""What peft puts into the names of the tensors that were there before."""


class Description(NamedTuple):
    """What a saved adapter says of itself beside the tensors."""

    r: int
    alpha: int
    module: str
    checkpoint: str | None
    revision: str | None
    weights: Mapping[str, str]  # what was loaded from there
    bits: int | None
    recipe: Mapping[str, Any]
    epoch: int


def build(model: Generative, r: int, alpha: int, dropout: float) -> None:
    """Put untrained adapters and a trainable copy of the projector into a loaded model, in place; what is trained is float32.

    Raises MedbenchError when the architecture's names match nothing.
    """
    targets, whole = model.lora_targets, list(model.projector)
    try:
        with lazy.bitsandbytes_where_used():
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, modules_to_save=whole)
            model.model = get_peft_model(model.model, config)
    except ValueError as error:
        found = f"no layer of the decoder fits lora_targets {model.lora_targets!r} ({str(error).split('.')[0]})"
        raise MedbenchError(f"architecture {type(model).__name__}", found, "fix its file") from None
    for value in trainable(model).values():
        value.data = value.data.float()
    model.model.eval()


def trainable(model: Generative) -> dict[str, torch.Tensor]:
    """Adapters and projector by name."""
    return {name: value for name, value in model.model.named_parameters() if _ADAPTER in name or f".{_COPY}." in name}


def adapters(model: Generative) -> list[str]:
    """Names of the adapters' tensors."""
    return [name for name in trainable(model) if _ADAPTER in name]


def outside(model: Generative) -> list[str]:
    """Adapters that are not in the decoder."""
    return [name for name in adapters(model) if DECODER not in name]


def projector(names: Mapping[str, Any] | list[str]) -> list[str]:
    """Those of `names` that are the projector's."""
    return [name for name in names if f".{_COPY}." in name]


@torch.no_grad()
def restore(model: Generative, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `trainable` gave."""
    for name, value in trainable(model).items():
        value.copy_(tensors[name])


def frozen_digest(model: Generative) -> str:
    """SHA-256 over every tensor that must not change, in the order of their names without peft's additions."""
    found = hashlib.sha256()
    for name, value in sorted(
        (_plain(name), value) for name, value in model.model.state_dict().items() if _ADAPTER not in name and f".{_COPY}." not in name
    ):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _plain(name: str) -> str:
    for part in _WRAPPED:
        name = name.replace(part, "")
    return name


def save(model: Generative, path: Path, description: Description) -> None:
    """Adapters and projector as one safetensors file with the description as its metadata."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in trainable(model).items()}
    save_file(tensors, path, {_ABOUT: json.dumps(description._asdict(), sort_keys=True)})  # one key: the order of several is random


def saved_names(path: Path) -> list[str]:
    """Names of the tensors in a file."""
    with safe_open(path, "pt") as file:
        return sorted(file.keys())


def read(path: Path, model: Generative, source: Source) -> None:
    """Put a saved adapter into a model that was just loaded from `source`, in place.

    Raises MedbenchError when the file is absent, damaged, or of another base: of models of one shape too.
    """
    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})[_ABOUT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        r, alpha, base, weights = int(described["r"]), int(described["alpha"]), [described[name] for name in _BASE], described["weights"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MedbenchError(path, f"is no readable adapter ({reason})", "delete it and run `adapt` again") from None
    if base != [getattr(source, name) for name in _BASE]:
        was, now = (
            " ".join(f"{name} {value}" for name, value in zip(_BASE, values, strict=True) if value is not None)
            for values in (base, [getattr(source, name) for name in _BASE])
        )
        raise MedbenchError(path, f"is an adapter for another base ({was}; this is {now})", "delete it and run `adapt` again")
    require_weights(path, weights, model.weights)
    build(model, r, alpha, 0.0)
    expected = {name: tuple(value.shape) for name, value in trainable(model).items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        odd = min(set(expected.items()) ^ set(found.items()))[0]
        raise MedbenchError(path, f"is the adapter of another model ({odd})", "delete it and run `adapt` again")
    restore(model, tensors)
