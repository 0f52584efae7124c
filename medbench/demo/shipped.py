"""Pretrained mini models that come with medbench, below `resources/models/`: those that the registry's recipes give with seed 0.

A folder holds a checkpoint in hub format (weights in half precision), a card, and `recipe.json`: what the weights follow from, the
versions that made them, and the SHA-256 of every file. The stage `pretrain` copies a folder whose recipe is the one that it is
asked for, and trains where there is none. `medbench.verbs.ship` makes the folders.
"""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from medbench.errors import MedbenchError

FOLDER = Path(__file__).parents[2] / "resources" / "models"
RECIPE = "recipe.json"
_MAKERS = {"llava": "medbench.demo.minillava"}
_CONTRASTIVE = "medbench.demo.minimodels"


class Recipe(NamedTuple):
    """What the weights of a mini model follow from, besides the code of `maker`."""

    architecture: str
    corpus: tuple[str, ...]
    steps: int
    batch_size: int
    pool_size: int
    seed: int


def maker(architecture: str) -> str:
    """Name of the module whose `pretrain` makes models of an architecture."""
    return _MAKERS.get(architecture, _CONTRASTIVE)


def train(recipe: Recipe, folder: Path) -> Any:
    """Train a model and save it in `folder`; the maker's report. Raises ValueError for what no model can be made of."""
    sizes = {"steps": recipe.steps, "batch_size": recipe.batch_size, "pool_size": recipe.pool_size}
    return importlib.import_module(maker(recipe.architecture)).pretrain(
        recipe.architecture, list(recipe.corpus), folder, recipe.seed, **sizes
    )


def find(model: str, recipe: Recipe) -> dict[str, str] | None:
    """File name -> SHA-256 of the model that comes with medbench; None where there is none, or it follows from another recipe.

    Raises MedbenchError for a `recipe.json` that cannot be read.
    """
    path = FOLDER / model / RECIPE
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        made, files = Recipe(**{**stored["recipe"], "corpus": tuple(stored["recipe"]["corpus"])}), dict[str, str](stored["files"])
    except (ValueError, KeyError, TypeError):
        raise MedbenchError(path, "is damaged", _remedy(model)) from None
    return files if made == recipe else None


def copy(model: str, files: dict[str, str], target: Path) -> None:
    """Copy a model's files into the new folder `target`. Raises MedbenchError for one that is absent or not what `recipe.json` says."""
    target.mkdir(parents=True)
    for name, expected in files.items():
        path = FOLDER / model / name
        if not path.is_file():
            raise MedbenchError(path, "does not exist", _remedy(model))
        content = path.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise MedbenchError(path, f"is damaged: its SHA-256 begins with {found[:12]}, not {expected[:12]}", _remedy(model))
        (target / name).write_bytes(content)


def _remedy(model: str) -> str:
    return f"bring it back with `git checkout resources/models`, or remove {FOLDER / model} to train the model anew"
