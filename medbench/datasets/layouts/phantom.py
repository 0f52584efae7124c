"""Layout `phantom`: drawn patients of the embedded demo (`medbench.demo.phantoms`). Consecutive patients form the splits."""

import io
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from medbench.datasets.layouts import SPLITS, DiagnosisItem, Embedded, Item, Source, Strict, embed, one_of
from medbench.demo import phantoms


class Patients(Strict):
    """Patients of each split."""

    train: int = Field(ge=2)
    val: int = Field(ge=2)
    test: int = Field(ge=2)

    def splits(self) -> list[str]:
        """The split of every patient, in the order in which they are drawn."""
        return [split for split in SPLITS for _ in range(getattr(self, split))]


class Options(Strict):
    """`kind`: one of `phantoms.KINDS`."""

    kind: Annotated[str, one_of(phantoms.KINDS)]
    n_patients: Patients


def index_files(options: Options, source: Source) -> list[Path]:
    """None: phantoms are drawn."""
    return []


def items(options: Options, source: Source) -> Iterator[Item]:
    """One item an image; class 0 lacks the sign, class 1 shows it."""
    if source.rows != "labels" or len(source.classes) != 2:
        raise source.error(
            "layout phantom",
            f"draws two classes, the entry is {source.task} of {list(source.classes)}",
            "declare two classes: without, with the sign",
        )
    splits = options.n_patients.splits()
    patients = groupby(phantoms.cohort(options.kind, len(splits), source.seed), key=lambda drawn: drawn.patient)
    for split, (patient, images) in zip(splits, patients, strict=True):
        for drawn in images:
            name = f"{patient}-{drawn.index}"
            yield DiagnosisItem(name, patient, split, encode(drawn.image), f"phantom {name}", source.classes[drawn.label])


def encode(pixels: npt.NDArray[np.uint8]) -> Embedded:
    """uint8 [height, width, 3] -> PNG; equal pixels give equal bytes."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return embed(stream.getvalue())
