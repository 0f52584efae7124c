"""One side of the row on intervals, a process of its own: `python -m benchmarks.peers.resampled SIDE FOLDER`.

SIDE is medbench (intervals of all measures of a diagnosis cell, as the stage `interval` makes them from its arrays), scikit-learn (AUROC
in a loop over resamples) or lmms-eval (its `bootstrap_stderr` of AUROC, with its pool of processes). FOLDER gets `phases.json` and
`spread.json`: the standard deviation of AUROC over the resamples.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.peers.clock import Clock

N, GROUPS, B = 1811, 1366, 1000


def made() -> tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    """Labels and scores of class 1."""
    generator = np.random.default_rng(0)
    labels = (generator.random(N) < 0.15).astype(np.int64)
    return labels, np.round(generator.random(N) + 0.4 * labels, 3) / 2


def auroc(pairs: list[tuple[int, float]]) -> float:
    """Of (label, score)."""
    labels, scores = zip(*pairs, strict=True)
    return float(roc_auc_score(labels, scores))


def medbench(clock: Clock) -> float:
    """All measures, on all and on leak-free samples. Phase `stage`: the deciding one on ten times as many resamples, as in the stage."""
    from medbench.metrics.measure import with_leak_free
    from medbench.stats.resamples import Groups, Resamples
    from medbench.stats.table import Plan, rows
    from medbench.tasks.diagnosis import TASK, ScoredDiagnosis

    labels, score = made()
    leak_free = np.arange(N) % 10 > 0
    groups = Groups([f"g{number * GROUPS // N}" for number in range(N)])
    subsets = with_leak_free({"all": np.ones(N, dtype=bool)}, leak_free)
    cell = ScoredDiagnosis([f"{number}" for number in range(N)], groups, subsets, labels, np.column_stack([1 - score, score]))
    for phase, n_test_resamples in (("intervals", B), ("stage", 10 * B)):
        clock.start(phase)
        found = rows(cell, TASK.primary, Resamples(0, "benchmark", len(cell.groups)), Plan(B, n_test_resamples, 0.95, False, 30))
        clock.stop(phase)
    [decides] = [row for row in found if row.measure == TASK.primary and row.method == "percentile"]
    print(len({row.measure for row in found}), "measures")
    assert decides.interval.sd is not None
    return decides.interval.sd


def scikit_learn(clock: Clock) -> float:
    """One measure; resamples of samples, since this loop knows no groups."""
    labels, score = made()
    generator = np.random.default_rng(0)
    clock.start("intervals")
    samples = (generator.integers(0, N, N) for _ in range(B))
    spread = float(np.std([roc_auc_score(labels[sample], score[sample]) for sample in samples]))
    clock.stop("intervals")
    return spread


def lmms_eval(clock: Clock) -> float:
    """One measure."""
    from lmms_eval.api.metrics import bootstrap_stderr

    pairs = [(int(label), float(score)) for label, score in zip(*made(), strict=True)]
    clock.start("intervals")
    spread = float(bootstrap_stderr(auroc, pairs, B))
    clock.stop("intervals")
    return spread


if __name__ == "__main__":
    side, folder = sys.argv[1], Path(sys.argv[2])
    deviation = {"medbench": medbench, "scikit-learn": scikit_learn, "lmms-eval": lmms_eval}[side](Clock(folder / "phases.json"))
    (folder / "spread.json").write_text(json.dumps(deviation), encoding="utf-8")
