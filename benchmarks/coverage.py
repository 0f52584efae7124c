"""Do the shown intervals cover, and do verdicts keep what they promise? python -m benchmarks.coverage > benchmarks/coverage.md

Patients have one label and several images; a score is label effect + patient effect + noise, so that AUROCs, accuracies and gaps are
known exactly. Intervals, guards, tests, Holm's adjustment and verdicts are the package's own, made of replicates of the drawn scores.
Draws in a row of `CHUNK` share which groups their resamples take, which depends on neither labels nor scores. Where few resamples
leave no verdict possible, the others of a data set are not made (`SCREENS`).
"""

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import NormalDist
from typing import Any, NamedTuple, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from medbench import tasks
from medbench.analysis.gaps import Estimate, Pair, Study, Unpaired, rq_table
from medbench.cells import Candidate, Cell
from medbench.metrics.measure import Measure
from medbench.stats import table
from medbench.stats.intervals import percentile
from medbench.stats.paired import SetTest, holm, is_within, set_test
from medbench.stats.resamples import BLOCK, Groups, Resamples
from medbench.stats.table import estimates, replicates
from medbench.tasks.diagnosis import ScoredDiagnosis

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
T = TypeVar("T")
PRIMARY = {name: tasks.get(name).primary for name in tasks.names()}
AUROC, ACCURACY = PRIMARY["diagnosis"], Measure("accuracy", "standard", "all")
LEVEL, ALPHA, MIN_GROUPS = 0.95, 0.05, 30  # a run's defaults, like the next
N_RESAMPLES = 10_000
COVERED_RESAMPLES = 500  # of an interval: its sd is then off by 3%, which costs less than 0.1 points of coverage
SCREENS = {200: 1.0, 1000: 0.3}  # resamples -> adjusted p from which on it is above 5% with all 10,000, too (but in 1 of 1,000 at most)
N_SETS = 6  # data sets of a table, over which Holm adjusts
CHUNK = 50
PATIENT, SHARED = 0.5, 0.6  # share of the variance that a patient's images have in common; of the noise that models have in common
FAR = 0.0  # "AUROC" of a candidate that is far worse: it loses to every other in all resamples, as a model at 0.5 all but always does


class Design(NamedTuple):
    """A kind of test set."""

    prevalence: float
    unequal: bool  # images a patient: 1, 2, 3, ... with probabilities 1/2, 1/4, 1/8, ...; else 1
    low: float  # effective groups of the rarest class: from here
    high: float  # to below this

    @property
    def n_groups(self) -> int:
        """Patients, so that effective groups lie between the two on the average: (E n)^2 / E n^2 of unequal sizes n is 2/3."""
        return round((self.low + self.high) / 2 / self.prevalence / (2 / 3 if self.unequal else 1))

    def __str__(self) -> str:
        return f"{self.prevalence:.0%}, {'unequal' if self.unequal else 'equal'}"


class TestSet(NamedTuple):
    """Groups and labels of a drawn test set, and the part of the score that all models have in common."""

    groups: Groups
    labels: Ints
    common: Floats


class Row(NamedTuple):
    """True AUROCs of all generalists and of all specialists on a data set."""

    generalists: tuple[float, ...]
    specialists: tuple[float, ...]

    def __str__(self) -> str:
        return f"{len(self.generalists)} v {len(self.specialists)}"


class Drawn(ScoredDiagnosis):
    """A cell of which AUROC alone is asked."""

    def measures(self) -> list[Measure]:
        """As of any cell."""
        return [AUROC]


class DrawnAccuracy(ScoredDiagnosis):
    """A cell of which accuracy alone is asked."""

    def measures(self) -> list[Measure]:
        """As of any cell."""
        return [ACCURACY]


Cells = dict[Cell, tuple[float, Floats, float]]  # estimate, replicates, effective groups


class Results:
    """Drawn cells as the gaps' source of numbers."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    def measures(self, cell: Cell) -> list[Measure]:
        """AUROC alone."""
        return [AUROC]

    def estimate(self, cell: Cell, measure: Measure) -> Estimate:
        """Of a drawn cell."""
        return Estimate(self.cells[cell][0], None)

    def pair(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
        """Of two drawn cells."""
        (a, drawn_a, effective), (b, drawn_b, other) = self.cells[first], self.cells[second]
        return Pair(a, b, drawn_a - drawn_b, None, None, max(effective, other))


def effect(auroc: float) -> float:
    """Distance of the classes, in sd of the score, that gives an AUROC."""
    return NormalDist().inv_cdf(auroc) * math.sqrt(2)


def draw_test_set(generator: np.random.Generator, design: Design) -> TestSet:
    """Drawn until the effective groups of the rarest class are the design's."""
    effective = -1.0
    while not design.low <= effective < design.high:
        sizes = generator.geometric(0.5, design.n_groups) if design.unequal else np.ones(design.n_groups, dtype=np.int64)
        positive = generator.random(design.n_groups) < design.prevalence
        effective = min(float(n.sum() ** 2 / max((n**2).sum(), 1)) for n in (sizes[positive], sizes[~positive]))
    index = np.repeat(np.arange(design.n_groups), sizes)
    return TestSet(Groups([f"{g:05d}" for g in index]), positive[index].astype(np.int64), noise(generator, index))


def noise(generator: np.random.Generator, index: Ints) -> Floats:
    """Unit variance, a share of it common to a patient's images."""
    patient = generator.normal(size=index.max() + 1)[index]
    mixed: Floats = math.sqrt(PATIENT) * patient + math.sqrt(1 - PATIENT) * generator.normal(size=len(index))
    return mixed


def draw_model(generator: np.random.Generator, data: TestSet, auroc: float, kind: type[ScoredDiagnosis] = Drawn) -> ScoredDiagnosis:
    """A model's scores; class 1 is predicted above half the distance, so accuracy is Phi(distance / 2)."""
    own = noise(generator, data.groups.index)
    raw = effect(auroc) * (data.labels - 0.5) + math.sqrt(SHARED) * data.common + math.sqrt(1 - SHARED) * own
    one = 1 / (1 + np.exp(-raw))
    return kind(
        list(map(str, range(len(one)))), data.groups, {"all": np.ones(len(one), dtype=bool)}, data.labels, np.column_stack([1 - one, one])
    )


def study_of(row: Row, n_sets: int, margin: float) -> Study:
    """A family with as many candidates, off the shelf, on so many data sets in the specialists' domain."""
    names = [f"data-{number}" for number in range(n_sets)]
    sides = {"generalist": len(row.generalists), "specialist": len(row.specialists)}
    candidates = tuple(
        Candidate(f"{role}-{number}", "family", role, frozenset(names)) for role, count in sides.items() for number in range(count)
    )
    cells = frozenset(Cell(dataset, candidate.model, "ots") for dataset in names for candidate in candidates)
    return Study(
        candidates, cells, dict.fromkeys(names, "diagnosis"), "ots", (), LEVEL, MIN_GROUPS, PRIMARY, dict.fromkeys(PRIMARY, margin), {}
    )


# Coverage

FROM = (10, 30, 100)  # effective groups; a test set has at most a tenth more
DESIGNS = [(0.05, False), (0.05, True), (0.1, True), (0.2, False), (0.4, False), (0.4, True)]  # prevalence, unequal
AUROCS, GAP = (0.8, 0.97, 0.95), (0.97, 0.95)


def covered(design: Design, chunk: int, n_draws: int) -> Counter[str]:
    """Of every statistic how often its interval is shown, and how often it holds the truth."""
    generator = np.random.default_rng([1, chunk, *seed(design)])
    resamples = Resamples(chunk, "coverage", design.n_groups)
    study = study_of(Row(GAP[:1], GAP[1:]), 1, 0.02)
    pair = dict(zip(GAP, sorted(study.cells), strict=True))
    found: Counter[str] = Counter()
    for _ in range(n_draws):
        data = draw_test_set(generator, design)
        cells: Cells = {}
        for truth in AUROCS:
            published, shown = intervals(draw_model(generator, data, truth), AUROC, resamples)
            count(found, f"AUROC {truth}", truth, *shown.interval[1:3])
            if truth in pair:
                cells[pair[truth]] = published.estimate, published.replicates, published.effective_groups
        ((low, high),) = rq_table("rq1", study, Results(cells)).select("low", "high").iter_rows()
        count(found, "gap {} - {}".format(*GAP), GAP[0] - GAP[1], low, high)
    return found


def covered_accuracy(design: Design, chunk: int, n_draws: int) -> Counter[str]:
    """As `covered`, of an accuracy, whose groups are those of both classes."""
    generator = np.random.default_rng([2, chunk, *seed(design)])
    resamples = Resamples(chunk, "coverage", design.n_groups)
    found: Counter[str] = Counter()
    for _ in range(n_draws):
        for auroc in (0.8, 0.97):
            truth = NormalDist().cdf(effect(auroc) / 2)
            _, shown = intervals(draw_model(generator, draw_test_set(generator, design), auroc, DrawnAccuracy), ACCURACY, resamples)
            count(found, f"accuracy {truth:.2f}", truth, *shown.interval[1:3])
    return found


def intervals(cell: ScoredDiagnosis, measure: Measure, resamples: Resamples) -> list[table.Row]:
    """Rows of a cell: percentile, which the study publishes and gaps are made of, and logit, which reports show."""
    return table.rows(cell, measure, resamples, table.Plan(COVERED_RESAMPLES, COVERED_RESAMPLES, LEVEL, False, MIN_GROUPS, published=False))


def count(found: Counter[str], title: str, truth: float, low: float | None, high: float | None) -> None:
    """One draw."""
    if low is not None and high is not None:
        found[f"{title}, shown"] += 1
        found[f"{title}, held"] += low <= truth <= high


def seed(design: Design) -> list[int]:
    """Of a design's draws."""
    return [round(100 * value) for value in design]


# Verdicts

SIDES = ("generalist", "specialist")
NO_VERDICT = {"verdict": None}


class Case(NamedTuple):
    """Tables of `n_sets` data sets: the first `n_true` are as `row` says, in the others the best of both are equal."""

    design: Design
    row: Row
    margin: float = 0.0  # none: nothing is equivalent
    n_sets: int = N_SETS
    n_true: int = N_SETS


def judged(case: Case, chunk: int, n_draws: int) -> Counter[str]:
    """Verdicts of the first `n_true` data sets: how many rows have one, and how many tables (`... in a table`).

    `old ...`: by the rules of before; `within ...`: shown to be within the margin, be one side ahead or not.
    """
    design, row, margin, n_sets, n_true = case
    generator = np.random.default_rng([3, chunk, *seed(design)])
    study = study_of(row, n_sets, margin)
    resamples = {dataset: Resamples(chunk, dataset, design.n_groups) for dataset in study.tasks}
    watched = list(study.tasks)[:n_true]
    found: Counter[str] = Counter()
    for _ in range(n_draws):
        drawn = {name: draw_row(generator, design, row if name in watched else level(row), study, name) for name in study.tasks}
        cells, is_open = replicated(drawn, study, resamples)
        made = dict.fromkeys(study.tasks, NO_VERDICT)
        if is_open:
            made |= {line["dataset"]: line for line in rq_table("rq1", study, Results(cells)).iter_rows(named=True)}
        old = old_verdicts(cells, study)
        verdicts = {
            "": [made[name]["verdict"] for name in watched],
            "old ": [old[name] for name in watched],
            "within ": [is_claimed(made[name]) for name in watched],
        }
        found["tables"] += 1
        found["rows"] += n_true
        for rules, given in verdicts.items():
            found.update(f"{rules}{verdict}" for verdict in given)
            found.update(f"{rules}{verdict} in a table" for verdict in set(given))
            found[f"{rules}side in a table"] += any(verdict in SIDES for verdict in given)
    return found


def level(row: Row) -> Row:
    """As many candidates, of which the first of either side are equal and the others far worse."""
    near = min(truth for truth in (*row.generalists, *row.specialists) if truth != FAR)
    return Row(*((near, *[FAR] * (len(side) - 1)) for side in row))


def draw_row(generator: np.random.Generator, design: Design, row: Row, study: Study, dataset: str) -> dict[Cell, ScoredDiagnosis | None]:
    """Models of one data set; None: far worse."""
    data = draw_test_set(generator, design)
    truths = [*row.generalists, *row.specialists]
    keys = [Cell(dataset, candidate.model, "ots") for candidate in study.candidates]
    return {key: None if truth == FAR else draw_model(generator, data, truth) for key, truth in zip(keys, truths, strict=True)}


def replicated(drawn: dict[str, dict[Cell, ScoredDiagnosis | None]], study: Study, resamples: dict[str, Resamples]) -> tuple[Cells, bool]:
    """Of all data sets, with as many resamples as their verdict takes; whether one of them can have a verdict."""
    cells: Cells = {}
    names = list(study.tasks)
    for n_resamples in (*SCREENS, N_RESAMPLES):
        for name in names:
            groups = len(next(model for model in drawn[name].values() if model).groups)
            first = np.hstack([np.ones((groups, 1)), *resamples[name].weights(n_resamples)]) if not n_resamples > BLOCK else None
            for cell, model in drawn[name].items():
                if model is None:
                    cells[cell] = 0.0, np.zeros(n_resamples), 0.0
                elif first is not None:  # the estimate is one resample more, of every group once
                    point, *_ = values = model.evaluate([AUROC], first)[AUROC]
                    cells[cell] = float(point), values[1:], model.effective_groups(AUROC)
                else:
                    cells[cell] = cells[cell][0], replicates(model, [AUROC], resamples[name], n_resamples)[AUROC], cells[cell][2]
        if n_resamples in SCREENS:
            tests = set_tests(cells, study)
            adjusted = zip(holm([one.p for one in tests.values()]), holm([one.equivalent.p for one in tests.values()]), strict=True)
            names = [name for name, both in zip(tests, adjusted, strict=True) if min(both) < SCREENS[n_resamples]]
    return cells, bool(names)


def set_tests(cells: Cells, study: Study) -> dict[str, SetTest]:
    """Of every data set, by the shares of the resamples as they are: what p was before effective groups counted."""
    tests = {}
    for name in study.tasks:
        own, other = sides(name, study)
        tests[name] = set_test({(g, s): cells[g][1] - cells[s][1] for g in own for s in other}, study.margin["diagnosis"])
    return tests


def sides(dataset: str, study: Study) -> list[list[Cell]]:
    """Generalists and specialists."""
    return [[Cell(dataset, candidate.model, "ots") for candidate in study.candidates if candidate.role == role] for role in SIDES]


def old_verdicts(cells: Cells, study: Study) -> dict[str, str]:
    """By the rules before effective groups and Monte Carlo errors counted, and before equivalence was tested on sets.

    p of the shares themselves, adjusted by Holm; else equivalent where the 90% interval (1,000 resamples) of the two best by
    point estimate lies within the margin.
    """
    margin, tests, verdicts = study.margin["diagnosis"], set_tests(cells, study), {}
    for (name, test), p in zip(tests.items(), holm([test.p for test in tests.values()]), strict=True):
        best, rival = (max(side, key=lambda cell: cells[cell][0]) for side in sides(name, study))
        picked = percentile((cells[best][1] - cells[rival][1])[:1000], 2 * LEVEL - 1)
        within = picked.low is not None and picked.high is not None and -margin <= picked.low and picked.high <= margin
        side = "generalist" if test.generalist.p < test.specialist.p else "specialist"
        verdicts[name] = side if p <= ALPHA else "equivalent" if within else "undecided"
    return verdicts


def gap_sd(design: Design, first: float, second: float, n_draws: int = 1000) -> float:
    """Standard deviation over draws of the difference of two models' AUROCs."""
    generator = np.random.default_rng([4, *seed(design)])
    gaps = []
    for _ in range(n_draws):
        data = draw_test_set(generator, design)
        a, b = (estimates(draw_model(generator, data, truth), [AUROC])[AUROC] for truth in (first, second))
        gaps.append(a - b)
    return float(np.std(gaps, ddof=1))


def ahead_by(design: Design, base: float, sds: float) -> float:
    """AUROC that is so many sd of the gap above `base`."""
    above = base
    for _ in range(4):
        above = base + sds * gap_sd(design, above, base)
    return above


# Tables


class Runs:
    """Draws of many cases at once; every case's in the order given."""

    def __init__(self, n_draws: int, processes: int) -> None:
        self.n_draws, self.pool = n_draws, ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def __call__(self, function: Callable[..., Counter[str]], cases: Sequence[T], n_draws: int = 0) -> list[Counter[str]]:
        """`function` of every case, number of the chunk and draws in it, summed over chunks."""
        n_draws = n_draws or self.n_draws
        sizes = [min(CHUNK, n_draws - start) for start in range(0, n_draws, CHUNK)]
        asked = [[self.pool.submit(function, case, chunk, size) for chunk, size in enumerate(sizes)] for case in cases]
        found = []
        for case, chunks in zip(cases, asked, strict=True):
            found.append(sum((one.result() for one in chunks), Counter[str]()))
            print(f"{case}: {dict(found[-1])}", file=sys.stderr, flush=True)  # progress
        return found


class Bar(NamedTuple):
    """What is asked, and what came out."""

    asked: str
    found: str
    holds: bool


def is_claimed(row: Mapping[str, Any]) -> bool:
    """Whether a row says that both are within the margin: the verdict, or a note at a side that is ahead."""
    return row["verdict"] == "equivalent" or (row["verdict"] in SIDES and is_within(row["p_equivalent"], LEVEL))


def bound(errors: int, n: int) -> float:
    """Upper one-sided 95% limit of a share (Clopper-Pearson)."""
    return float(binomtest(errors, n, alternative="less").proportion_ci(LEVEL).high)


def show(header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """A Markdown table."""
    print("\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, ["---"] * len(header), *lines)), flush=True)


def coverage_tables(runs: Runs) -> list[Bar]:
    """Every statistic by design and effective groups."""
    cases = [Design(*kind, low, 1.1 * low) for kind in DESIGNS for low in FROM]
    of_accuracy = [Design(0.4, unequal, 0.4 * low, 0.44 * low) for unequal in (False, True) for low in FROM]
    shares: list[tuple[float, float]] = []  # effective groups, coverage
    for function, designs in ((covered, cases), (covered_accuracy, of_accuracy)):
        counts = dict(zip(designs, runs(function, designs), strict=True))
        titles = [title.removesuffix(", shown") for title in next(iter(counts.values())) if title.endswith("shown")]
        lines = []
        for kind in dict.fromkeys(map(str, designs)):
            for title in titles:
                held = [one[f"{title}, held"] / max(one[f"{title}, shown"], 1) for case, one in counts.items() if str(case) == kind]
                shares += zip(FROM, held, strict=True)
                lines.append([title, kind, *(f"{share:.3f}" for share in held)])
        show(
            ["95% interval of", "prevalence, images a patient", *(f"from {low} effective groups" for low in FROM)],
            sorted(lines, key=lambda line: line[0]),
        )
        print()
    wide, many = min(share for _, share in shares), [share for low, share in shares if low >= 100]
    return [
        Bar(
            "coverage 93% to 97% from 100 effective groups", f"{min(many):.1%} to {max(many):.1%}", min(many) >= 0.93 and max(many) <= 0.97
        ),
        Bar("coverage at least 88% wherever an interval is shown", f"{wide:.1%}", wide >= 0.88),
    ]


FEW = Design(0.4, False, 50, 55)
MANY = Design(0.4, False, 200, 220)
PATIENTS_200 = Design(0.4, False, 76, 84)
NULLS = [
    Case(FEW, Row((0.97,), (0.97,))),
    Case(FEW, Row((0.8,), (0.8,))),
    Case(FEW, Row((0.97,), (0.97, FAR, FAR, FAR))),
    Case(FEW, Row((0.97, 0.97), (0.97,))),
    Case(FEW, Row((0.97, 0.97), (0.97, FAR, FAR, FAR))),
    Case(Design(0.2, True, 50, 55), Row((0.97,), (0.97,))),
    Case(Design(0.4, False, 100, 110), Row((0.97,), (0.97,))),
    Case(MANY, Row((0.97,), (0.97,))),
]


def false_verdicts(runs: Runs) -> list[Bar]:
    """Tables that name a side although the best of both are equal."""
    counts = runs(judged, NULLS)
    errors = [(one["side in a table"], one["tables"]) for one in counts]
    lines = [
        (
            *described(case), f"{case.design.low} to {case.design.high}", f"{wrong / n:.3f}", f"{bound(wrong, n):.3f}",
            f"{one['old side in a table'] / n:.3f}",
        )
        for case, one, (wrong, n) in zip(NULLS, counts, errors, strict=True)
    ]  # fmt: skip
    show(["sets", "true AUROCs", "prevalence, images", "effective groups", "a side named", "at most (95%)", "by the old rules"], lines)
    worst = max(wrong / n for wrong, n in errors), max(bound(wrong, n) for wrong, n in errors)
    return [Bar("false verdicts at most 6%, bound 6.5%", f"{worst[0]:.1%}, {worst[1]:.1%}", worst[0] <= 0.06 and worst[1] <= 0.065)]


def described(case: Case) -> tuple[str, str, str]:
    """Sets, AUROCs and design of a case."""
    sides = [", ".join("far" if truth == FAR else f"{truth:.3g}" for truth in side) for side in case.row]
    return str(case.row), " against ".join(sides), str(case.design)


ABOVE, BELOW = 0.97, 0.87  # the margin apart
AT_MARGIN = [
    *(
        Case(FEW, Row(generalists, specialists), ABOVE - BELOW, 1, 1)
        for generalists, specialists in (
            ((ABOVE,), (BELOW,)),
            ((ABOVE,), (BELOW,) * 2),
            ((ABOVE,), (BELOW,) * 4),
            ((ABOVE, FAR), (BELOW,) * 4),
            ((BELOW,) * 2, (ABOVE, FAR, FAR, FAR)),
        )
    ),
    Case(FEW, Row((ABOVE,), (BELOW,)), ABOVE - BELOW),
    Case(MANY, Row((0.82,), (0.75,)), 0.82 - 0.75, 1, 1),
]


def equivalence_errors(runs: Runs) -> list[Bar]:
    """Tables that call a gap of exactly the margin less than the margin."""
    counts = runs(judged, AT_MARGIN)
    errors = [(one["within True in a table"], one["tables"]) for one in counts]
    lines = [
        (
            *described(case), f"{case.design.low} to {case.design.high}", case.n_sets, f"{wrong / n:.3f}", f"{bound(wrong, n):.3f}",
            f"{one['old equivalent in a table'] / n:.3f}",
        )
        for case, one, (wrong, n) in zip(AT_MARGIN, counts, errors, strict=True)
    ]  # fmt: skip
    design = ["sets", "true AUROCs", "prevalence, images", "effective groups"]
    show([*design, "data sets", "within the margin", "at most (95%)", "by the old rules"], lines)
    worst = max(wrong / n for wrong, n in errors)
    return [Bar("equivalence errors at most 5.5%", f"{worst:.1%}", worst <= 0.055)]


def power(runs: Runs) -> list[Bar]:
    """Sides that are ahead and are named so; equal sides that are called equivalent."""
    base, sd = 0.75, gap_sd(PATIENTS_200, 0.75, 0.75)
    ahead = {sds: ahead_by(PATIENTS_200, base, sds) for sds in (3.5, 4.5)}
    of_gaps = [
        (verdict, f"{sds:g} sd ahead", Case(PATIENTS_200, Row(*aurocs), n_true=1))
        for sds, verdict, *aurocs in (
            (3.5, "generalist", (ahead[3.5],), (base,)),
            (4.5, "generalist", (ahead[4.5], FAR), (base,) * 4),
            (4.5, "specialist", (base,) * 2, (ahead[4.5], FAR, FAR, FAR)),
        )
    ]
    of_equals = [
        ("equivalent", f"equal, the margin is {sds:g} sd", Case(PATIENTS_200, Row((base,) * generalists, (base,) * specialists), sds * sd))
        for sds, generalists, specialists in ((4, 1, 1), (4, 2, 4))
    ]
    counts = runs(judged, [case for *_, case in of_gaps]) + runs(judged, [case for *_, case in of_equals], -(-runs.n_draws // N_SETS))
    lines, new, ratios = [], {}, []
    for (verdict, what, case), one in zip([*of_gaps, *of_equals], counts, strict=True):
        given, old = one[verdict] / one["rows"], one[f"old {verdict}"] / one["rows"]
        new[str(case.row), what, verdict] = given
        ratios.append(given / old if old else math.inf)
        lines.append([str(case.row), verdict, what, f"{given:.3f}", f"{old:.3f}", f"{ratios[-1]:.2f}"])
    show(["sets", "true verdict", "gap", "given", "by the old rules", "ratio"], lines)
    least = min(share for (sets, what, _), share in new.items() if (sets, what) == ("2 v 4", "4.5 sd ahead"))
    return [
        Bar("power at least 80% at 4.5 sd (2 v 4, six sets)", f"{least:.1%}", least >= 0.8),
        Bar("power at least 90% of the old rules'", f"{min(ratios):.0%}", min(ratios) >= 0.9),
    ]


PARTS: dict[str, tuple[Callable[[Runs], list[Bar]], str]] = {
    "coverage": (
        coverage_tables,
        "Share of test sets whose 95% interval holds the truth: logit intervals as reports show them, and gaps. Effective groups are "
        "those of the rarest class, for an accuracy those of both. Images a patient: one, or 1, 2, 3, ... with probabilities 1/2, 1/4, "
        "1/8, ....",
    ),
    "false-verdicts": (
        false_verdicts,
        f"Tables of {N_SETS} data sets in which a side is named although the best of both are equal everywhere. Candidates that are *far* "
        "worse make a null least favourable to one side: its best has one rival alone.",
    ),
    "equivalence": (
        equivalence_errors,
        "Tables that call a true gap of exactly the margin less than the margin (equivalent, or ahead within the margin). The best of one "
        "side is as far above every candidate of the other, each of which is a chance to err.",
    ),
    "power": (
        power,
        f"Share of data sets with the true verdict, 200 patients. A side is ahead in one of {N_SETS} data sets and level in the others, by "
        f"so many sd of the gap; or both are equal in all {N_SETS}.",
    ),
}


def main() -> None:
    """Print all tables, and what they say about what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    runs = Runs(arguments.draws, arguments.processes)
    print(f"# `python -m benchmarks.coverage`: {arguments.draws:,} draws of every row")
    bars = []
    for name in arguments.parts:
        part, about = PARTS[name]
        print(f"\n## {name.replace('-', ' ').capitalize()}\n\n{about}\n")
        bars += part(runs)
    print("\n## Asked and found\n")
    show(["asked", "found", ""], [(*bar[:2], "holds" if bar.holds else "**missed**") for bar in bars])


if __name__ == "__main__":
    main()
