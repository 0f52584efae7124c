"""Do the intervals cover, and do verdicts stay away when all models are equal? python -m benchmarks.coverage [--draws 1000]

Patients have one or two images and one label; a score is label effect + patient effect + noise, so that AUROC, accuracy and
gaps are known exactly. Prints in Markdown: coverage by number of groups, which columns keep within 93-97% from 200 groups up,
and the share of family tables with a verdict other than undecided or equivalent.
"""

import argparse
import math
import os
from statistics import NormalDist
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from medbench import tasks
from medbench.analysis.gaps import Estimate, Pair, Study, Unpaired, rq_table
from medbench.cells import Candidate, Cell
from medbench.metrics.measure import Measure
from medbench.stats.intervals import Interval, logit, percentile
from medbench.stats.resamples import Groups, Resamples
from medbench.stats.table import estimates, replicates
from medbench.tasks.diagnosis import ScoredDiagnosis

PRIMARY = {name: tasks.get(name).primary for name in tasks.names()}
Floats = NDArray[np.float64]
SIZES = (30, 50, 100, 200, 500)  # groups
LEVEL = 0.95
ENOUGH, WITHIN = 200, (0.93, 0.97)  # groups from which the coverage of a 95% interval is asked to lie in a range
LEGEND = (
    "Columns named percentile are the interval that the study publishes; logit is the one that reports show, for bounded metrics; "
    "gaps are paired percentile intervals."
)
PATIENT, SHARED = 0.5, 0.6  # share of the variance that a patient's images have in common; of the noise that models have in common
AUROC, ACCURACY = PRIMARY["diagnosis"], Measure("accuracy", "standard", "all")
STRONG, WEAK, NEAR_ONE = 0.80, 0.75, 0.97  # true AUROCs


class TestSet(NamedTuple):
    """Groups and labels of a drawn test set, and the part of the score that all models have in common."""

    groups: Groups
    labels: NDArray[np.int64]
    common: Floats


def effect(auroc: float) -> float:
    """Distance of the classes, in sd of the score, that gives an AUROC."""
    return NormalDist().inv_cdf(auroc) * math.sqrt(2)


def draw_test_set(generator: np.random.Generator, n_groups: int) -> TestSet:
    """One or two images a patient, 40% of the patients positive (at least two of either class, or AUROC is undefined)."""
    index = np.repeat(np.arange(n_groups), generator.integers(1, 3, n_groups))
    positive = generator.random(n_groups) < 0.4
    positive[:2], positive[2:4] = True, False
    return TestSet(Groups([f"{g:04d}" for g in index]), positive[index].astype(np.int64), noise(generator, index))


def noise(generator: np.random.Generator, index: NDArray[np.int64]) -> Floats:
    """Unit variance, a share of it common to a patient's images."""
    patient = generator.normal(size=index.max() + 1)[index]
    mixed: Floats = math.sqrt(PATIENT) * patient + math.sqrt(1 - PATIENT) * generator.normal(size=len(index))
    return mixed


def draw_model(generator: np.random.Generator, data: TestSet, auroc: float) -> ScoredDiagnosis:
    """A model's scores; class 1 is predicted above half the distance, so accuracy is Phi(distance / 2)."""
    own = noise(generator, data.groups.index)
    distance = effect(auroc)
    raw = distance * (data.labels - 0.5) + math.sqrt(SHARED) * data.common + math.sqrt(1 - SHARED) * own
    one = 1 / (1 + np.exp(-raw))
    ids = [str(number) for number in range(len(one))]
    return ScoredDiagnosis(ids, data.groups, {"all": np.ones(len(one), dtype=bool)}, data.labels, np.column_stack([1 - one, one]))


def coverage(n_draws: int, n_groups: int, n_resamples: int) -> dict[str, float]:
    """Share of draws whose interval holds the truth, by statistic and method."""
    held: dict[str, list[bool]] = {}
    for number in range(n_draws):
        for title, truth, interval in intervals(number, n_groups, n_resamples):
            inside = interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high
            held.setdefault(title, []).append(inside)
    return {title: sum(values) / len(values) for title, values in held.items()}


def intervals(number: int, n_groups: int, n_resamples: int) -> list[tuple[str, float, Interval]]:
    """Title, truth and interval of every statistic in one draw."""
    generator = np.random.default_rng([n_groups, number])
    data = draw_test_set(generator, n_groups)
    resamples = Resamples(number, "coverage", n_groups)
    truths: dict[tuple[float, Measure], float] = {}
    points: dict[tuple[float, Measure], float] = {}
    drawn: dict[tuple[float, Measure], Floats] = {}
    for auroc in (STRONG, WEAK, NEAR_ONE):
        cell = draw_model(generator, data, auroc)
        points |= {(auroc, measure): value for measure, value in estimates(cell, [AUROC, ACCURACY]).items()}
        drawn |= {(auroc, measure): replicates(cell, [measure], resamples, n_resamples)[measure] for measure in (AUROC, ACCURACY)}
        truths |= {(auroc, AUROC): auroc, (auroc, ACCURACY): NormalDist().cdf(effect(auroc) / 2)}
    made = []
    for title, key in ((f"AUROC {STRONG}", (STRONG, AUROC)), (f"AUROC {NEAR_ONE}", (NEAR_ONE, AUROC)), ("accuracy", (STRONG, ACCURACY))):
        made.append((f"{title}, percentile", truths[key], percentile(drawn[key], LEVEL)))
        made.append((f"{title}, logit", truths[key], logit(points[key], drawn[key], LEVEL, n_groups)))
    for title, measure in (("AUROC gap", AUROC), ("accuracy gap", ACCURACY)):
        truth = truths[STRONG, measure] - truths[WEAK, measure]
        made.append((title, truth, percentile(drawn[STRONG, measure] - drawn[WEAK, measure], LEVEL)))
    return made


class Drawn:
    """Generated cells as the gaps' source of numbers."""

    def __init__(self, cells: dict[Cell, tuple[float, Floats]], n: int, n_groups: int) -> None:
        self._cells, self._n, self._n_groups = cells, n, n_groups

    def measures(self, cell: Cell) -> list[Measure]:
        """AUROC alone."""
        return [AUROC]

    def estimate(self, cell: Cell, measure: Measure) -> Estimate:
        """Of a generated cell."""
        return Estimate(self._cells[cell][0], None)

    def pair(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
        """Of two generated cells."""
        (a, drawn_a), (b, drawn_b) = self._cells[first], self._cells[second]
        return Pair(a, b, drawn_a - drawn_b, self._n, self._n_groups, float(self._n_groups))


def false_verdicts(n_draws: int, n_groups: int, n_resamples: int) -> float:
    """Share of family tables (6 data sets; 2 generalists, 4 specialists, all equal) in which one side is declared ahead."""
    names = [f"data-{number}" for number in range(6)]
    sides = {"generalist": 2, "specialist": 4}
    candidates = tuple(
        Candidate(f"{role}-{number}", "family", role, frozenset(names)) for role, count in sides.items() for number in range(count)
    )
    keys = [Cell(dataset, candidate.model, "ots") for dataset in names for candidate in candidates]
    study = Study(
        candidates, frozenset(keys), dict.fromkeys(names, "diagnosis"), "ots", (), LEVEL, 30, PRIMARY, dict.fromkeys(PRIMARY, 0.02), {}
    )
    wrong = 0
    for number in range(n_draws):
        generator = np.random.default_rng([n_groups, number, 1])
        cells: dict[Cell, tuple[float, Floats]] = {}
        for dataset in names:
            data = draw_test_set(generator, n_groups)
            resamples = Resamples(number, dataset, n_groups)
            for candidate in candidates:
                model = draw_model(generator, data, STRONG)
                point = estimates(model, [AUROC])[AUROC]
                cells[Cell(dataset, candidate.model, "ots")] = point, replicates(model, [AUROC], resamples, n_resamples)[AUROC]
        verdicts = rq_table("rq1", study, Drawn(cells, len(data.labels), n_groups))["verdict"]
        wrong += verdicts.is_in(["generalist", "specialist"]).any()
    return wrong / n_draws


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--test-resamples", type=int, default=2000, help="resamples behind each p value of the second table")
    arguments = parser.parse_args()
    print(f"Coverage of 95% intervals, {arguments.draws:,} draws, 1,000 resamples over groups. {LEGEND}\n")
    measured: dict[int, dict[str, float]] = {}
    for size in SIZES:
        row = measured[size] = coverage(arguments.draws, size, 1000)
        if size == SIZES[0]:
            print(f"| groups | {' | '.join(row)} |\n|{'---|' * (len(row) + 1)}")
        print(f"| {size} | {' | '.join(f'{share:.3f}' for share in row.values())} |", flush=True)
    print(f"\n{judged(measured)}")
    tables = f"{arguments.draws:,} draws, {arguments.test_resamples:,} resamples"
    print(f"\nFamily tables with a verdict although all models are equal, {tables}:\n")
    print("| groups | share |\n|---|---|", flush=True)
    for size in (50, 200):
        print(f"| {size} | {false_verdicts(arguments.draws, size, arguments.test_resamples):.3f} |", flush=True)


def judged(measured: dict[int, dict[str, float]]) -> str:
    """Which columns keep within the range from `ENOUGH` groups up. `measured`: groups -> column -> coverage."""
    columns = {title: [row[title] for size, row in measured.items() if size >= ENOUGH] for title in measured[SIZES[0]]}
    outside = [
        f"{title} ({min(shares):.3f} to {max(shares):.3f})"
        for title, shares in columns.items()
        if not (WITHIN[0] <= min(shares) and max(shares) <= WITHIN[1])
    ]
    said = f"From {ENOUGH} groups up {len(columns) - len(outside)} of {len(columns)} columns keep within {WITHIN[0]:.0%} to {WITHIN[1]:.0%}"
    return f"{said}; outside: {', '.join(outside)}." if outside else f"{said}."


if __name__ == "__main__":
    main()
