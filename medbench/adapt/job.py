"""What an adaptation is given and what it hands back. numpy only, so that every method can import it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medbench.adapt.certificate import Certificate
from medbench.errors import MedbenchError
from medbench.models.similarity import log_softmax

if TYPE_CHECKING:
    from PIL import Image

    from medbench.jobs.partial import Work
    from medbench.models.checkpoint import Source
    from medbench.models.prefetch import Row

Tensors: TypeAlias = dict[str, NDArray[Any]]


class Samples(NamedTuple):
    """One split of a diagnosis data set, in the order of its table."""

    sample_ids: list[str]
    group_ids: list[str]
    labels: NDArray[np.int64]  # [n]
    image_ids: list[str]


class Job(NamedTuple):
    """All that an adaptation may look at. Of the test split it gets the ids, to prove that none of them was used."""

    cell: str
    classes: tuple[str, ...]
    train: Samples
    val: Samples
    test_ids: frozenset[str]
    recipe: Mapping[str, Any]
    seed: int
    features: Callable[[Sequence[str]], NDArray[np.float32]]  # image ids -> cached features [n, d]
    images: "Callable[[Sequence[str], int], Iterable[Sequence[Row]]]"  # image ids, batch size -> batches, each image once
    decode: "Callable[[bytes], Image.Image]"
    source: "Source | None"
    workers: int
    work: "Work"  # this job's own folder; what lies there survives a kill
    prompts: tuple[tuple[str, ...], ...] | None = None  # deciding prompts of each class, where they are the head


class Adapted(NamedTuple):
    """A finished adaptation: the folder of its weights (in the job's own) and the proof that it happened."""

    weights: Path
    certificate: Certificate
    base: Mapping[str, str] = {}  # what the model was loaded from, where one was: see Contrastive.weights


def check_classes(cell: str, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Raises MedbenchError when a class has no sample to learn from."""
    counts = np.bincount(labels, minlength=len(classes))
    if (empty := [name for name, count in zip(classes, counts, strict=True) if not count]) and len(classes) - len(empty) < 2:
        raise MedbenchError(
            f"cell {cell}", f"train holds {len(classes) - len(empty)} class of {len(classes)}", "two are needed to learn from"
        )
    if empty:
        raise MedbenchError(f"cell {cell}", f"no sample of class {empty[0]!r} to learn from", "add some, or drop the class")


def class_weights(labels: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """n / (k * n_c) per class [k]: every class weighs the same."""
    return np.asarray(len(labels) / (k * np.bincount(labels, minlength=k)), dtype=np.float64)


def weighted_loss(logits: NDArray[Any], labels: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Class-weighted cross-entropy of logits [n, k]: the weighted mean over samples."""
    each = weights[labels]
    return float((each * -log_softmax(logits)[np.arange(len(labels)), labels]).sum() / each.sum())
