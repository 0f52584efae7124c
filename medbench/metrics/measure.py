"""What is measured of a cell, how, and on which part of the test set."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
PROMPTS = "prompts-"
"""What the scoring by a set of prompts begins with."""


AS = "as-"
"""What the scoring by another program's parser begins with."""


class Measure(NamedTuple):
    """What is measured, how, and on which part of the test set."""

    metric: str
    scoring: str  # standard | prompts-{set} | strict | published | letter | text
    subset: str  # all | open | closed, and the leak-free part of each: leak-free | leak-free-open | leak-free-closed

    @property
    def is_compared(self) -> bool:
        """Whether models are compared by it: how one does by another wording or another program's parser is a fact about it alone, and no
        value of a difference between two kinds of questions is the better one."""
        return not self.scoring.startswith((PROMPTS, AS)) and self.metric not in REASONING_GAPS

    @property
    def leak_free(self) -> "Measure":
        """The same on the leak-free part of the subset."""
        return self._replace(subset=leak_free_part(self.subset))


LOWER_IS_BETTER = frozenset({"ece", "flip_rate", "low_mass", "refused", "truncated", "unparsed", "filtered", "judge_score_failed"})
REASONING_GAPS = ("reasoning_gap", "reasoning_gap_by_length")
"""Accuracy on questions of reasoning minus on those of understanding; and the same among questions of similar length."""
BELOW_ZERO = frozenset({"above_chance", *REASONING_GAPS})
"""What can be negative; every other metric lies within 0 and 1."""
LEAK_FREE = "leak-free"
MIN_LEAK_FREE = 30  # samples; what fewer leak-free ones would say is left undefined


def leak_free_part(subset: str) -> str:
    """Name of a subset's samples without a duplicate in train or val: `all` -> `leak-free`, `open` -> `leak-free-open`."""
    return LEAK_FREE if subset == "all" else f"{LEAK_FREE}-{subset}"


def with_leak_free(subsets: dict[str, Bools], leak_free: Bools) -> dict[str, Bools]:
    """Every subset, and the leak-free part of each."""
    return subsets | {leak_free_part(name): mask & leak_free for name, mask in subsets.items()}


def too_few(subset: str, used: Bools) -> bool:
    """Whether `used` samples of a leak-free subset are too few for an estimate."""
    return subset.startswith(LEAK_FREE) and int(used.sum()) < MIN_LEAK_FREE


def shortage(subset: str, thing: str, used: Bools) -> str:
    """`29 leak-free closed questions, fewer than 30`."""
    n = int(used.sum())
    part = subset.removeprefix(LEAK_FREE).replace("-", " ")
    return f"{n} {LEAK_FREE}{part} {thing}{'' if n == 1 else 's'}, fewer than {MIN_LEAK_FREE}"
