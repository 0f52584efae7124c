"""A generative model with adapters on its decoder and a trained projector: built, saved and read back. Used by training and `predict`."""

from collections.abc import Mapping
from pathlib import Path

import torch

from medbench.adapt import peft_layout
from medbench.adapt.peft_layout import LORA, Description
from medbench.errors import MedbenchError
from medbench.jobs import lazy
from medbench.models.checkpoint import Source, require_weights
from medbench.models.generative_base import Generative
from medbench.models.hub import DECODER

PROJECTOR = "projector.safetensors"
"""The file of the projector, under the names of the checkpoint's own module: its `load_state_dict(..., strict=False)` takes them."""
_BASE = ("module", "bits")
"""What an adapter and the model that it is put into must have in common, beside the weights."""


def build(model: Generative, r: int, alpha: int, dropout: float) -> None:
    """Put untrained adapters into a loaded model and make its projector trainable, in place; what is trained is float32.

    Raises MedbenchError when the architecture's names match nothing.
    """
    try:
        with lazy.bitsandbytes_where_used():
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=model.lora_targets)
            model.model = get_peft_model(model.model, config)
    except ValueError as error:
        found = f"no layer of the decoder fits lora_targets {model.lora_targets!r} ({str(error).split('.')[0]})"
        raise MedbenchError(f"architecture {type(model).__name__}", found, "fix its file") from None
    for value in projector(model).values():
        value.requires_grad_(True)
    for value in trainable(model).values():
        value.data = value.data.float()
    model.model.eval()


def trainable(model: Generative) -> dict[str, torch.Tensor]:
    """Adapters and projector by name."""
    return {name: value for name, value in model.model.named_parameters() if LORA in name or is_projector(model, name)}


def is_projector(model: Generative, name: str) -> bool:
    """Whether a tensor's name is one of the projector's."""
    return any(f".{part}." in f".{name}" for part in model.projector)


def projector(model: Generative) -> dict[str, torch.Tensor]:
    """The projector by the names of the checkpoint's own module."""
    return {name: value for name, value in model.base.named_parameters() if is_projector(model, name)}


def adapters(model: Generative) -> list[str]:
    """Names of the adapters' tensors."""
    return [name for name in trainable(model) if LORA in name]


def outside(model: Generative) -> list[str]:
    """Adapters that are not in the decoder."""
    return [name for name in adapters(model) if DECODER not in name]


def restore(model: Generative, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `trainable` gave."""
    peft_layout.copy_into(trainable(model), tensors)


def frozen_digest(model: Generative) -> str:
    """SHA-256 over every tensor that must not change."""
    tensors = model.model.state_dict()
    return peft_layout.frozen_digest({name: value for name, value in tensors.items() if not is_projector(model, name)})


def save(model: Generative, folder: Path, description: Description) -> None:
    """Adapters in PEFT's layout, and the projector beside them."""
    peft_layout.save(model.model, folder, PROJECTOR, projector(model), description)


def lacking(model: Generative, folder: Path) -> list[str]:
    """Names of the tensors that prediction needs and the files of a folder lack."""
    return sorted({*peft_layout.adapters(model.model), *projector(model)} - peft_layout.names(folder, PROJECTOR))


def saved_projector(model: Generative, folder: Path) -> int:
    """Number of the projector's tensors in a folder."""
    return sum(is_projector(model, name) for name in peft_layout.names(folder, PROJECTOR))


def read(folder: Path, model: Generative, source: Source) -> None:
    """Put a saved adapter into a model that was just loaded from `source`, in place.

    Raises MedbenchError when a file is absent, damaged, or of another base: of models of one shape too.
    """
    saved = peft_layout.read(folder, PROJECTOR)
    base = [getattr(saved.description, name) for name in _BASE]
    if base != [getattr(source, name) for name in _BASE]:
        was, now = (
            " ".join(f"{name} {value}" for name, value in zip(_BASE, values, strict=True) if value is not None)
            for values in (base, [getattr(source, name) for name in _BASE])
        )
        raise MedbenchError(folder, f"is an adapter for another base ({was}; this is {now})", "delete it and run `adapt` again")
    require_weights(folder, saved.description.weights, model.weights)
    build(model, saved.r, saved.alpha, 0.0)
    peft_layout.require_same(folder / PROJECTOR, projector(model), saved.rest)
    peft_layout.put(folder, model.model, saved.adapters)
    peft_layout.copy_into(projector(model), saved.rest)
