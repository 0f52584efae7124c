"""What is measured of a cell, how, and on which part of the test set."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
PROMPTS = "prompts-"
"""What the scoring by a set of prompts begins with."""


class Measure(NamedTuple):
    """What is measured, how, and on which part of the test set."""

    metric: str
    scoring: str  # standard | prompts-{set} | strict | published
    subset: str  # all | open | closed, and the clean part of each: clean | clean-open | clean-closed

    @property
    def is_compared(self) -> bool:
        """Whether models are compared by it: how one of them does by another wording is a fact about that model alone."""
        return not self.scoring.startswith(PROMPTS)

    @property
    def clean(self) -> "Measure":
        """The same on the clean part of the subset."""
        return self._replace(subset=clean_part(self.subset))


LOWER_IS_BETTER = frozenset({"ece"})
CLEAN = "clean"
MIN_CLEAN = 30  # samples; what fewer clean ones would say is left undefined


def clean_part(subset: str) -> str:
    """Name of a subset's samples without a twin in train or val: `all` -> `clean`, `open` -> `clean-open`."""
    return CLEAN if subset == "all" else f"{CLEAN}-{subset}"


def with_clean(subsets: dict[str, Bools], clean: Bools) -> dict[str, Bools]:
    """Every subset, and the clean part of each."""
    return subsets | {clean_part(name): mask & clean for name, mask in subsets.items()}


def too_few(subset: str, used: Bools) -> bool:
    """Whether `used` samples of a clean subset are too few for an estimate."""
    return subset.startswith(CLEAN) and int(used.sum()) < MIN_CLEAN


def shortage(subset: str, thing: str, used: Bools) -> str:
    """`29 clean closed questions, fewer than 30`."""
    n = int(used.sum())
    return f"{n} {subset.replace('-', ' ')} {thing}{'' if n == 1 else 's'}, fewer than {MIN_CLEAN}"
