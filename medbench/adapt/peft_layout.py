"""The files of a LoRA cell: adapters and their configuration as PEFT lays them out, and what else was trained in a file of its own.

`peft.PeftModel.from_pretrained(base, folder)` reads the first two without this project. The third describes all three, and holds the
digests of the other two: files of two cells never pass for one.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from medbench.errors import MedbenchError
from medbench.jobs import digests
from medbench.models.checkpoint import MAIN

ADAPTERS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
LORA = "lora_"
"""Part of the names of all tensors that peft adds to a module."""
_PREFIX = "base_model.model."  # in PEFT's file, before the name of a module in the base
_WRAPPED = (_PREFIX, ".base_layer")  # what peft puts into the names of the tensors that were there before
_NAME = "default"  # peft's for a module's only adapters
_ABOUT = "medbench"  # key of the description in the metadata of the third file
_AGAIN = "delete it and run `adapt` again"


class Description(NamedTuple):
    """What a saved adaptation says of itself beside the tensors."""

    module: str
    checkpoint: str | None
    revision: str | None
    weights: Mapping[str, str]  # what was loaded from there
    recipe: Mapping[str, Any]
    epoch: int
    bits: int | None = None
    classes: tuple[str, ...] = ()


class Saved(NamedTuple):
    """What the files of one cell hold. `adapters`: under PEFT's names; `rest`: under the names they were saved with."""

    description: Description
    r: int
    alpha: int
    adapters: dict[str, torch.Tensor]
    rest: dict[str, torch.Tensor]


def adapters(module: nn.Module) -> dict[str, torch.Tensor]:
    """The adapters of a module that peft put them into, under the names of `PeftModel.save_pretrained`."""
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(module, save_embedding_layers=False)
    return {name if name.startswith(_PREFIX) else f"{_PREFIX}{name}": value for name, value in found.items()}


def save(module: nn.Module, folder: Path, file: str, rest: Mapping[str, torch.Tensor], description: Description) -> None:
    """Write the adapters of `module` with their configuration, and `rest` as `file` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_on_cpu(adapters(module)), folder / ADAPTERS, {"format": "pt"})
    _save_config(module, folder, description)
    parts = {name: digests.file_digest(folder / name) for name in (ADAPTERS, CONFIG)}
    about = json.dumps({"description": description._asdict(), "files": parts}, sort_keys=True)
    save_file(_on_cpu(rest), folder / file, {_ABOUT: about})  # one key: the order of several is random


def _save_config(module: nn.Module, folder: Path, description: Description) -> None:
    """As `PeftModel.save_pretrained` does it, with the checkpoint by its name in the registry and the commit that was loaded."""
    config: Any = copy.copy(module.peft_config[_NAME])  # type: ignore[index]
    kind, _, commit = description.weights.get(MAIN, "").partition(" ")
    config.base_model_name_or_path = description.checkpoint
    config.revision = commit if kind == "commit" else description.revision
    config.inference_mode = True
    base = type(module.get_base_model() if hasattr(module, "get_base_model") else module)  # type: ignore[operator]
    config.save_pretrained(folder, auto_mapping_dict={"base_model_class": base.__name__, "parent_library": base.__module__})


def frozen_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over tensors that must not change, in the order of their names without peft's additions; adapters are left out."""
    found = hashlib.sha256()
    for name, value in sorted((_plain(name), value) for name, value in tensors.items() if LORA not in name):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _plain(name: str) -> str:
    for part in _WRAPPED:
        name = name.replace(part, "")
    return name


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def names(folder: Path, file: str) -> set[str]:
    """Names of the tensors in both files of tensors."""
    found: set[str] = set()
    for part in (ADAPTERS, file):
        with safe_open(folder / part, "pt") as opened:
            found.update(opened.keys())
    return found


def read(folder: Path, file: str) -> Saved:
    """What `save` wrote. Raises MedbenchError when a file is absent, damaged, or not of one cell with the others."""
    try:
        with safe_open(folder / file, "pt") as opened:
            about = json.loads((opened.metadata() or {})[_ABOUT])
            rest = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        for name in (ADAPTERS, CONFIG):
            if digests.file_digest(folder / name) != about["files"][name]:
                raise MedbenchError(folder / name, f"is not the file that {file} was saved with", _AGAIN)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return Saved(Description(**about["description"]), config["r"], config["lora_alpha"], load_file(folder / ADAPTERS), rest)
    except FileNotFoundError as error:
        found = "the file does not exist"
        raise MedbenchError(error.filename or folder / file, found, f"run `snakemake --cores all {folder}`") from None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise MedbenchError(folder, f"is no readable adapter ({' '.join(str(error).split())[:200]})", _AGAIN) from None


def put(folder: Path, module: nn.Module, saved: Mapping[str, torch.Tensor]) -> None:
    """Give untrained adapters in a module their saved values. Raises MedbenchError when the names or shapes are others."""
    from peft import set_peft_model_state_dict

    require_same(folder / ADAPTERS, adapters(module), saved)
    loaded: Any = set_peft_model_state_dict(module, dict(saved))
    if odd := [*loaded.unexpected_keys, *(name for name in loaded.missing_keys if LORA in name)]:
        raise MedbenchError(folder / ADAPTERS, f"is the adapter of another model ({odd[0]})", _AGAIN)


def require_same(file: Path, expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    """Raise MedbenchError when a file holds tensors of other names or shapes than the model has."""
    shapes, others = ({(name, tuple(value.shape)) for name, value in tensors.items()} for tensors in (expected, found))
    if shapes != others:
        raise MedbenchError(file, f"is the adapter of another model ({min(shapes ^ others)[0]})", _AGAIN)


@torch.no_grad()
def copy_into(targets: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Give every target the value of the tensor of its name."""
    for name, value in targets.items():
        value.copy_(tensors[name])
