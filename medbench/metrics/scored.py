"""A scored cell: its samples as arrays, and every measure of it for any weighting of its groups.

Both kinds of cells have the same methods: `measures()` in the order of the table; `used(measure)`, the samples [n] that are
not null for it (a score that is not finite, another answer type); `evaluate(measures, weights)` [B] for weights [groups, B],
NaN where undefined; `why_undefined(measure)`; `without(dropped)`, the cell with more samples null.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medbench.metrics import diagnosis
from medbench.metrics.diagnosis import STEP, Diagnosis
from medbench.stats.resamples import Groups

Task = Literal["diagnosis", "vqa"]
PROMPTS = "prompts-"
"""What the scoring by another prompt set than `main` begins with."""
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


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


PRIMARY: dict[Task, Measure] = {
    "diagnosis": Measure("auroc", "standard", "all"),
    "vqa": Measure("closed_accuracy", "strict", "closed"),
}
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


@dataclass(frozen=True)
class ScoredDiagnosis:
    """`labels` [n] in 0..k-1, `scores` [n, k] (rows that are not finite are null).

    `draws` [draws, n, k]: of a few-shot cell; every measure is then the mean of what it is in each draw. `by_prompts`: the scores [n, k]
    off the shelf by every prompt set, of which AUROC is reported.
    """

    ids: list[str]
    groups: Groups
    subsets: dict[str, Bools]
    labels: NDArray[np.int64]
    scores: Floats
    draws: Floats | None = None
    by_prompts: dict[str, Floats] = field(default_factory=dict)

    def measures(self) -> list[Measure]:
        made = [Measure(metric, "standard", subset) for subset in self.subsets for metric in Diagnosis._fields]
        return [*made, *(Measure("auroc", f"{PROMPTS}{name}", "all") for name in self.by_prompts)]

    def used(self, measure: Measure) -> Bools:
        return self.subsets[measure.subset] & np.isfinite(self.scores).all(axis=1)

    def evaluate(self, measures: Sequence[Measure], weights: Floats) -> dict[Measure, Floats]:
        if self.draws is not None:
            each = [replace(self, scores=scores, draws=None).evaluate(measures, weights) for scores in self.draws]
            return {measure: np.mean([one[measure] for one in each], axis=0) for measure in measures}
        results: dict[Measure, Floats] = {}
        for measure in [one for one in measures if not one.is_compared]:
            of_set = replace(self, scores=self.by_prompts[measure.scoring.removeprefix(PROMPTS)])
            standard = measure._replace(scoring="standard")
            results[measure] = of_set.evaluate([standard], weights)[standard]
        measures = [measure for measure in measures if measure.is_compared]
        made: dict[bytes, Diagnosis] = {}  # without a twin the clean samples are all of them: computed once
        for subset in dict.fromkeys(measure.subset for measure in measures):
            wanted = [measure for measure in measures if measure.subset == subset]
            use = self.used(wanted[0])
            if too_few(subset, use):
                results |= dict.fromkeys(wanted, np.full(weights.shape[1], np.nan))
            elif [measure.metric for measure in wanted] == ["auroc"]:
                results[wanted[0]] = diagnosis.auroc(self.labels[use], self.scores[use], weights[self.groups.index[use]])
            else:
                if use.tobytes() not in made:
                    made[use.tobytes()] = diagnosis.metrics(self.labels[use], self.scores[use], weights[self.groups.index[use]])
                results |= {measure: getattr(made[use.tobytes()], measure.metric) for measure in wanted}
        return results

    def why_undefined(self, measure: Measure) -> str:
        use = self.used(measure)
        if too_few(measure.subset, use):
            return shortage(measure.subset, "sample", use)
        absent = sorted(set(range(self.scores.shape[1])) - set(self.labels[use].tolist()))
        if not use.any():
            return "no sample with a finite score"
        return f"no sample of class {', '.join(map(str, absent))} among {int(use.sum())}"

    def without(self, dropped: Bools) -> "ScoredDiagnosis":
        return replace(self, subsets={name: mask & ~dropped for name, mask in self.subsets.items()})


@dataclass(frozen=True)
class ScoredVqa:
    """`values`: column of the scores table -> [n], NaN where null. Every measure is a mean of a column over a subset."""

    ids: list[str]
    groups: Groups
    subsets: dict[str, Bools]
    values: dict[tuple[str, str], Floats]  # (metric, scoring) -> [n]

    def measures(self) -> list[Measure]:
        """Accuracies are defined per answer type, and have no overall value (PROTOCOL.md section 3)."""
        return [
            Measure(metric, scoring, subset)
            for subset in self.subsets
            for metric, scoring in self.values
            if subset in SUBSETS.get((metric, scoring), self.subsets)
        ]

    def used(self, measure: Measure) -> Bools:
        return self.subsets[measure.subset] & np.isfinite(self.values[measure.metric, measure.scoring])

    def evaluate(self, measures: Sequence[Measure], weights: Floats) -> dict[Measure, Floats]:
        masks = {measure: self.used(measure) for measure in measures}
        # without a twin the clean samples are all of them: every column and mask is computed once
        keys = {measure: (measure.metric, measure.scoring, mask.tobytes()) for measure, mask in masks.items()}
        first = {key: measure for measure, key in reversed(keys.items())}
        used = np.array([masks[measure] for measure in first.values()])
        values = np.array([self.values[measure.metric, measure.scoring] for measure in first.values()])
        steps = np.rint(np.where(used, values, 0.0) * STEP)
        sums = self._by_group(steps) @ weights  # whole numbers, exact in float64 up to two million samples
        counts = self._by_group(used.astype(np.float64)) @ weights
        with np.errstate(invalid="ignore", divide="ignore"):
            made = dict(zip(first, sums / counts / STEP, strict=True))
        undefined = np.full(weights.shape[1], np.nan)
        return {measure: undefined if too_few(measure.subset, masks[measure]) else made[key] for measure, key in keys.items()}

    def why_undefined(self, measure: Measure) -> str:
        use = self.used(measure)
        if too_few(measure.subset, use):
            return shortage(measure.subset, "question", use)
        if not self.subsets[measure.subset].any():
            return "no question" if measure.subset == "all" else f"no {measure.subset} question"
        return f"no {measure.subset} question has a value"

    def without(self, dropped: Bools) -> "ScoredVqa":
        return replace(self, subsets={name: mask & ~dropped for name, mask in self.subsets.items()})

    def _by_group(self, rows: Floats) -> Floats:
        """Sums [m, groups] of rows [m, n]."""
        return np.array([np.bincount(self.groups.index, weights=row, minlength=len(self.groups)) for row in rows])


Scored = ScoredDiagnosis | ScoredVqa

# Subsets of the measures that are not defined on all of them.
SUBSETS: dict[tuple[str, str], tuple[str, ...]] = {
    ("closed_accuracy", "strict"): ("closed", "clean-closed"),
    ("parsed", "strict"): ("closed", "clean-closed"),
    ("accuracy", "published"): ("open", "closed", "clean-open", "clean-closed"),
}
