"""A linear classifier on standardised features, as a probe saves it and `predict` reads it. numpy only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from medbench.errors import MedbenchError

F64 = NDArray[np.float64]
FILE = "probe.safetensors"
"""In the folder of a cell's weights."""


class Linear(NamedTuple):
    """logits = ((features - mean) / scale) @ coef.T + intercept; all float64."""

    mean: F64  # [d]
    scale: F64  # [d], 1 where a feature is constant
    coef: F64  # [k, d]
    intercept: F64  # [k]

    def logits(self, features: NDArray[Any]) -> F64:
        """Features [n, d] -> class logits [n, k]."""
        return np.asarray((features - self.mean) / self.scale @ self.coef.T + self.intercept)


def write(linear: Linear, folder: Path) -> None:
    """Save as safetensors. How it was chosen stands in the certificate of the cell."""
    _save(linear._asdict(), folder)


def write_all(classifiers: Sequence[Linear], folder: Path) -> None:
    """Save several in one file."""
    _save({f"{n}.{name}": value for n, one in enumerate(classifiers) for name, value in one._asdict().items()}, folder)


def _save(tensors: Mapping[str, F64], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / FILE)


def read_all(folder: Path) -> list[Linear]:
    """What `write_all` saved. Raises MedbenchError when the file is absent, damaged or lacks a tensor."""
    tensors = _load(folder)
    count = 1 + max((int(name.partition(".")[0]) for name in tensors), default=-1)
    try:
        return [Linear(*(tensors[f"{n}.{field}"] for field in Linear._fields)) for n in range(count)]
    except KeyError as error:
        raise MedbenchError(folder / FILE, f"lacks the tensor {error}", "delete it and run `adapt` again") from None


def missing(folder: Path) -> list[str]:
    """Names of the tensors that a saved classifier lacks."""
    return sorted(set(Linear._fields) - set(load_file(folder / FILE)))


def read(folder: Path) -> Linear:
    """Raises MedbenchError when the file is absent, damaged or lacks a tensor."""
    try:
        return Linear(**_load(folder))
    except TypeError as error:
        raise MedbenchError(folder / FILE, f"is no linear probe ({error})", "delete it and run `adapt` again") from None


def _load(folder: Path) -> dict[str, F64]:
    path = folder / FILE
    try:
        return load_file(path)
    except FileNotFoundError:
        raise MedbenchError(path, "the file does not exist", f"run `snakemake --cores all {folder}`") from None
    except SafetensorError as error:
        raise MedbenchError(path, f"is no linear probe ({error})", "delete it and run `adapt` again") from None
