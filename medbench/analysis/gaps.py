"""Gaps between generalists and specialists (PROTOCOL.md section 2): RQ1-RQ3 per family, the global view, and pooled over data sets.

RQ4 is not the study's: in the specialists' domain, both sides adapted.

A gap is descriptive for the published pair, the best of either side by point estimate; its verdict tests the whole sets
(DESIGN.md, "Statistics"). What is missing is named in the row's `reason`, and the other rows still come out.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import tables
from medbench.cells import Candidate, Cell
from medbench.metrics.measure import LOWER_IS_BETTER, Measure
from medbench.stats.intervals import MIN_GROUPS
from medbench.stats.paired import (
    PairedGap,
    SetTest,
    Verdict,
    ahead,
    holm,
    minimum_detectable_difference,
    paired_gap,
    selection_bias,
    set_test,
    verdict,
)
from medbench.stats.pooling import hartung_knapp
from medbench.stats.table import shortage
from medbench.tables.contract import Table

Floats = NDArray[np.float64]
QUESTIONS = ("rq1", "rq2", "rq3", "rq4")
MOST_FAILED = 0.01  # share of judgements that may fail where a verdict rests on them
NOBODY = "absent"  # stands for a generalist of which no cell can be used: the column is part of the key


NO_PAIRING = "estimates alone, without paired resamples: no interval, p value or verdict of a gap"


class Study(NamedTuple):
    """Who is compared with whom. `cells`: all that the run should have; `adapted`: modes that are not off the shelf, each on its own."""

    candidates: tuple[Candidate, ...]
    cells: frozenset[Cell]  # of baselines too, which are no candidates
    tasks: dict[str, str]  # data set -> task, in the run's order
    off_the_shelf: str | None
    adapted: tuple[str, ...]
    level: float
    min_groups: int
    primary: Mapping[str, Measure]  # task -> the measure that decides
    margin: Mapping[str, float]  # task -> equivalence margin, in the measure's unit
    chance: Mapping[str, float | None]  # task -> the measure's value when guessing
    fallback: Mapping[str, Measure] = MappingProxyType({})  # task -> what decides where a cell of a comparison has no primary measure
    secondary: Mapping[str, Measure] = MappingProxyType({})  # task -> a measure that decides in comparisons of its own
    secondary_margin: Mapping[str, float] = MappingProxyType({})

    def margin_of(self, measure: Measure, dataset: str) -> float:
        """Of a measure that decides on a data set."""
        task = self.tasks[dataset]
        return self.secondary_margin[task] if measure == self.secondary.get(task) else self.margin[task]


class Estimate(NamedTuple):
    """One measure of one cell; `value` is None with a reason. `low`: of its interval, where there is one."""

    value: float | None
    reason: str | None
    low: float | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """Two cells on the samples that both have, on the same resamples: `differences` [B] first - second, NaN where undefined.

    None: only the two estimates are known, as in a published table, which allows a gap but nothing about its uncertainty.
    """

    first: float
    second: float
    differences: Floats | None
    n: int | None
    n_groups: int | None
    effective_groups: float | None
    _gaps: dict[float, PairedGap] = field(default_factory=dict, init=False, repr=False)

    def gap(self, level: float) -> PairedGap:
        """Interval and p value of the differences, computed once: several tables ask for them."""
        if level not in self._gaps:
            assert self.differences is not None, "asked where there are some"
            self._gaps[level] = paired_gap(self.differences, level, self.effective_groups)
        return self._gaps[level]


class Unpaired(NamedTuple):
    """Why two cells cannot be compared."""

    reason: str


class Results(Protocol):
    """Where gaps take their numbers from."""

    def measures(self, cell: Cell) -> list[Measure]:
        """Measures that a cell has; none where it is missing."""
        ...

    def estimate(self, cell: Cell, measure: Measure) -> Estimate:
        """Point estimate; a missing cell or measure is a reason."""
        ...

    def pair(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
        """Both cells of one data set."""
        ...


Validation: TypeAlias = Callable[[Cell], Estimate]
"""What a cell reaches on validation data, by the measure that decides."""


class Side(NamedTuple):
    """Cells of one side with their estimates, best first (a tie: in the run's order), and what is missing."""

    cells: list[Cell]
    missing: list[str]


class Sides(NamedTuple):
    """One comparison: a question, its adaptation, the family (`all` in the global view), and the cells of either side."""

    question: str
    adaptation: str
    family: str
    dataset: str
    generalists: list[Cell]
    specialists: list[Cell]
    alone: bool = False  # a generalist that stands for itself, not for its family: no verdict


class _Made(NamedTuple):
    row: dict[str, Any]
    gap: PairedGap | None
    test: SetTest | None  # of the sets, where the row may get a verdict
    barred: Mapping[str, str]  # verdict -> why the row cannot have it


def rq_table(question: str, study: Study, results: Results) -> pl.DataFrame:
    """Table `gaps` of one of rq1, rq2, rq3, rq4; Holm over its primary rows, each adaptation apart."""
    rows = []
    for adaptation in adaptations(question, study):
        made = [
            _make(sides, measure, 1, study, results)
            for sides in family_sides(question, adaptation, study)
            for measure in _measures(sides, study, results)
        ]
        rows += _judged(made, study)
    return _frame(rows)


def adaptations(question: str, study: Study) -> list[str]:
    """Modes of the adapted side; RQ1 is asked off the shelf."""
    return list(study.adapted) if question != "rq1" else [mode for mode in [study.off_the_shelf] if mode]


def global_table(study: Study, results: Results, within_family: bool = False) -> pl.DataFrame:
    """Every adapted generalist on its own against the best and the second best specialist, over all families or within its own."""
    rows = [
        _make(sides, measure, rank, study, results).row
        for adaptation in study.adapted
        for question in ("global-rq2", "global-rq3")
        for sides in global_sides(question, adaptation, study, within_family)
        for measure in _measures(sides, study, results)
        for rank in (1, 2)
    ]
    return _frame(rows)


def confirmatory_table(study: Study, results: Results, validation: Validation) -> pl.DataFrame:
    """Table `confirmatory`: the family's questions with one model a side, chosen on validation data and tested once on test.

    Nothing was chosen on test, so gap and p value are without selection bias. Holm over the rows of one question and adaptation.
    """
    rows = []
    for question in QUESTIONS:
        for adaptation in adaptations(question, study):
            rows += _judged([_confirmed(sides, study, results, validation) for sides in family_sides(question, adaptation, study)], study)
    return _frame(rows, tables.Confirmatory)


def with_a_choice(study: Study) -> list[Cell]:
    """Cells of sides with several models: those of which the validation value is needed."""
    sides = [one for question in QUESTIONS for mode in adaptations(question, study) for one in family_sides(question, mode, study)]
    several = [cell for one in sides for cells in (one.generalists, one.specialists) if len(cells) > 1 for cell in cells]
    return list(dict.fromkeys(several))


def pooled_table(gaps: pl.DataFrame, level: float, primary: Collection[Measure]) -> pl.DataFrame:
    """Table `pooled-gaps`: each family's gaps over its data sets, by the measures that decide."""
    key = ("question", "adaptation", "family", *Measure._fields)
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for *names, gap, sd in gaps.select(*key, "gap", "sd").iter_rows():
        if Measure(*names[3:]) in primary:
            usable = found.setdefault(tuple(names), [])
            usable += [(gap, sd)] if None not in (gap, sd) else []
    records = []
    for group, values in found.items():
        pooled = hartung_knapp([gap for gap, _ in values], [sd for _, sd in values], level)
        made = {"k": pooled.k, "gap": pooled.mean, "low": pooled.low, "high": pooled.high, "tau2": pooled.tau2, "reason": pooled.reason}
        records.append({**dict(zip(key[:-1], group, strict=False)), **made})
    return pl.DataFrame(records, schema=tables.columns(tables.PooledGaps))


def family_sides(question: str, adaptation: str, study: Study) -> list[Sides]:
    """Comparisons of one question: every family with cells on both sides, on every data set that qualifies for one of its specialists."""
    in_domain = question != "rq3"
    specialist_mode = study.off_the_shelf if question in ("rq1", "rq2") else adaptation
    comparisons = []
    for family in dict.fromkeys(candidate.family for candidate in study.candidates):
        members = [candidate for candidate in study.candidates if candidate.family == family]
        for dataset in study.tasks:
            generalists = _cells(members, "generalist", dataset, adaptation, study)
            specialists = _cells(
                [one for one in members if (dataset in one.in_domain) == in_domain], "specialist", dataset, specialist_mode, study
            )
            if generalists and specialists:
                comparisons.append(Sides(question, adaptation, family, dataset, generalists, specialists))
    return comparisons


def global_sides(question: str, adaptation: str, study: Study, within_family: bool) -> list[Sides]:
    """One comparison for every adapted generalist and data set, against the specialists that qualify."""
    in_domain = question == "global-rq2"
    specialist_mode = study.off_the_shelf if in_domain else adaptation
    families = list(dict.fromkeys(candidate.family for candidate in study.candidates)) if within_family else ["all"]
    comparisons = []
    for family in families:
        members = [candidate for candidate in study.candidates if family in ("all", candidate.family)]
        for dataset in study.tasks:
            qualified = [candidate for candidate in members if (dataset in candidate.in_domain) == in_domain]
            specialists = _cells(qualified, "specialist", dataset, specialist_mode, study)
            if specialists:
                generalists = _cells(members, "generalist", dataset, adaptation, study)
                comparisons += [Sides(question, adaptation, family, dataset, [cell], specialists, alone=True) for cell in generalists]
    return comparisons


def _cells(members: Sequence[Candidate], role: str, dataset: str, mode: str | None, study: Study) -> list[Cell]:
    cells = [Cell(dataset, candidate.model, mode) for candidate in members if candidate.role == role and mode]
    return [cell for cell in cells if cell in study.cells]


def _measures(sides: Sides, study: Study, results: Results) -> list[Measure]:
    """The measures that decide, then all others that any cell of the comparison has."""
    found = [measure for cell in (*sides.generalists, *sides.specialists) for measure in results.measures(cell)]
    return list(dict.fromkeys([*_decide_by(sides, study, results), *found]))


def _decide_by(sides: Sides, study: Study, results: Results) -> list[Measure]:
    """What decides a comparison, and what decides in comparisons of its own."""
    second = study.secondary.get(study.tasks[sides.dataset])
    return [deciding(sides, study, results), *([second] if second else [])]


def deciding(sides: Sides, study: Study, results: Results) -> Measure:
    """One measure for both sides: the primary one where all have it that have any, else the other one of the task."""
    task = study.tasks[sides.dataset]
    primary, other = study.primary[task], study.fallback.get(task)
    if other is None:
        return primary
    cells = (*sides.generalists, *sides.specialists)
    lacks = any(results.estimate(cell, primary).value is None and results.estimate(cell, other).value is not None for cell in cells)
    return other if lacks else primary


def _side(cells: list[Cell], measure: Measure, results: Results) -> Side:
    estimates = {cell: results.estimate(cell, measure) for cell in cells}
    have = [(estimate.value, cell) for cell, estimate in estimates.items() if estimate.value is not None]
    ranked = [cell for _, cell in sorted(have, key=lambda item: item[0] if measure.metric in LOWER_IS_BETTER else -item[0])]
    return Side(ranked, [f"{cell}: {estimate.reason}" for cell, estimate in estimates.items() if estimate.value is None])


def _make(sides: Sides, measure: Measure, rank: int, study: Study, results: Results) -> _Made:
    """One row; `rank` 1 sets the best generalist against the best specialist, 2 against the second best."""
    generalists, specialists = _side(sides.generalists, measure, results), _side(sides.specialists, measure, results)
    notes = [*generalists.missing, *specialists.missing]
    row = _key(sides, generalists, measure, rank)
    gap, test, barred = None, None, dict[str, str]()
    if generalists.cells and specialists.cells:
        own, other = generalists.cells[0], specialists.cells[min(rank, len(specialists.cells)) - 1]
        row["specialist"] = other.model
        row["generalist_estimate"], row["specialist_estimate"] = (results.estimate(cell, measure).value for cell in (own, other))
        pair = results.pair(own, other, measure)
        if isinstance(pair, Unpaired):
            notes.append(pair.reason)
        else:
            row |= _gap(pair, measure)
            gap, why_not = uncertainty(pair, study)
            if gap is None:
                notes.append(why_not)
            else:
                row |= {"sd": gap.sd, "low": gap.low, "high": gap.high, "p": gap.p, "minimum_detectable_difference": gap.detectable}
                if not sides.alone and measure in _decide_by(sides, study, results):
                    row["selection_bias"] = _selection_bias(generalists.cells, specialists.cells, measure, results)
                    test = _test(generalists, specialists, measure, pair, study, results, notes)
                    barred = _barred(generalists, specialists, measure, study, results, pair.effective_groups) if test else {}
    row["reason"] = "; ".join(notes) or None
    return _Made(row, gap, test, barred)


def _key(sides: Sides, generalists: Side, measure: Measure, rank: int) -> dict[str, Any]:
    return {
        "question": sides.question, "adaptation": sides.adaptation, "family": sides.family, "dataset": sides.dataset,
        "generalist": sides.generalists[0].model if sides.alone else generalists.cells[0].model if generalists.cells else NOBODY,
        "rank": rank, **measure._asdict(), "generalist_mode": sides.generalists[0].mode, "specialist_mode": sides.specialists[0].mode,
        "n_generalists": len(sides.generalists), "n_specialists": len(sides.specialists),
    }  # fmt: skip


def _confirmed(sides: Sides, study: Study, results: Results, validation: Validation) -> _Made:
    """One row of the models that validation data choose, the first of equals; a model alone on its side needs no choice."""
    measure, values, missing = deciding(sides, study, results), dict[str, float | None](), list[str]()
    chosen = []
    for name, cells in (("generalist", sides.generalists), ("specialist", sides.specialists)):
        reached = {cell: validation(cell) for cell in cells} if len(cells) > 1 else {cells[0]: Estimate(None, None)}
        missing += [f"{cell}: {one.reason}" for cell, one in reached.items() if one.reason]
        best = max(reached, key=lambda cell: -math.inf if (value := reached[cell].value) is None else value)
        chosen.append([best])
        values[f"{name}_validation"] = reached[best].value
    if missing:
        row = _key(sides, Side([], []), measure, 1) | {"reason": f"no choice on validation data: {'; '.join(missing)}"}
        return _Made(row, None, None, {})
    made = _make(sides._replace(generalists=chosen[0], specialists=chosen[1]), measure, 1, study, results)
    return made._replace(row=made.row | values)


def _selection_bias(generalists: list[Cell], specialists: list[Cell], measure: Measure, results: Results) -> float | None:
    """Of best minus best; 0 where each side is one model, None where a pair is missing."""
    if len(generalists) == len(specialists) == 1:
        return 0.0
    sides = [_differences(cells, specialists[:1], measure, results) for cells in (generalists, specialists)]
    one, other = ([] if isinstance(side, Unpaired) else list(side.values()) for side in sides)
    return selection_bias(one, other) if one and other else None


def uncertainty(pair: Pair, study: Study) -> tuple[PairedGap | None, str]:
    """Interval and p value of a gap, or None and why there is none."""
    if pair.differences is None:
        return None, NO_PAIRING
    if pair.effective_groups is not None and pair.effective_groups < MIN_GROUPS:
        return None, f"{shortage(pair.effective_groups, MIN_GROUPS)}: no interval, no verdict"
    gap = pair.gap(study.level)
    return (None, gap.reason) if gap.reason else (gap, "")


def _gap(pair: Pair, measure: Measure) -> dict[str, Any]:
    better = pair.first < pair.second if measure.metric in LOWER_IS_BETTER else pair.first > pair.second
    return {
        "generalist_estimate": pair.first, "specialist_estimate": pair.second, "gap": pair.first - pair.second,
        "exceeds": better, "n_pair": pair.n, "n_groups": pair.n_groups, "effective_groups": pair.effective_groups,
    }  # fmt: skip


def _test(
    generalists: Side, specialists: Side, measure: Measure, best: Pair, study: Study, results: Results, notes: list[str]
) -> SetTest | None:
    """Test of the whole sets; None, with a note, where groups are few or a cell cannot take part."""
    if best.effective_groups is not None and best.effective_groups < study.min_groups:
        notes.append(f"{shortage(best.effective_groups, study.min_groups)}: no verdict")
        return None
    if generalists.missing or specialists.missing:
        notes.append("no verdict on incomplete sets")
        return None
    failed = measure._replace(metric=f"{measure.metric}_failed")
    for cell in (*generalists.cells, *specialists.cells) if measure in study.secondary.values() else ():
        if (share := results.estimate(cell, failed).value) is not None and share > MOST_FAILED:
            notes.append(f"{cell}: {share:.1%} of the judgements failed, more than {MOST_FAILED:.0%}: no verdict")
            return None
    differences = _differences(generalists.cells, specialists.cells, measure, results)
    if isinstance(differences, Unpaired):
        notes.append(f"{differences.reason}: no verdict")
        return None
    return set_test(differences, study.margin_of(measure, generalists.cells[0].dataset), best.effective_groups)


def _differences(
    firsts: Sequence[Cell], seconds: Sequence[Cell], measure: Measure, results: Results
) -> dict[tuple[Cell, Cell], Floats] | Unpaired:
    """Of every pair [B]; Unpaired where one of them has none."""
    differences = {}
    for first in firsts:
        for second in seconds:
            pair = results.pair(first, second, measure)
            if isinstance(pair, Unpaired) or pair.differences is None:
                return pair if isinstance(pair, Unpaired) else Unpaired(NO_PAIRING)
            differences[first, second] = pair.differences
    return differences


def _barred(
    generalists: Side, specialists: Side, measure: Measure, study: Study, results: Results, effective_groups: float | None
) -> dict[str, str]:
    """Verdict -> why the row cannot have it: no side is above the baseline, or the side that would win is itself at chance."""
    models, dataset = [*generalists.cells, *specialists.cells], generalists.cells[0].dataset
    compared = {candidate.model for candidate in study.candidates}
    others = [cell for cell in sorted(study.cells) if cell.dataset == dataset and cell.model not in compared]
    baselines = _side(others, measure, results).cells
    above = _differences(models, baselines, measure, results)
    if baselines and not isinstance(above, Unpaired) and ahead(above, 0.0, effective_groups).p > (1 - study.level) / 2:
        return dict.fromkeys(get_args(Verdict), "neither side is above the baseline: no verdict")
    task, barred = study.tasks[dataset], {}
    chance = None if measure == study.secondary.get(task) else study.chance.get(task)
    for name, side in (("generalist", generalists), ("specialist", specialists)):
        low = results.estimate(side.cells[0], measure).low
        if chance is not None and low is not None and low <= chance:
            barred[name] = f"the {name} is ahead but itself at chance: no verdict"
    return barred


def _judged(made: list[_Made], study: Study) -> list[dict[str, Any]]:
    """Rows of one question and adaptation with set-wise p values, Holm's adjustment over the tested ones, and verdicts.

    Comparisons by a secondary measure are adjusted among themselves: what judges say changes no verdict of accuracies.
    """
    secondary = set(study.secondary.values())
    for is_secondary in (False, True):
        _decide([one for one in made if (Measure(*(one.row[name] for name in Measure._fields)) in secondary) is is_secondary], study)
    return [one.row for one in made]


def _decide(made: list[_Made], study: Study) -> None:
    """Verdicts of one family of tests, in their rows."""
    tests = [one.test for one in made if one.test]
    adjusted = iter(zip(holm([test.p for test in tests]), holm([test.equivalent.p for test in tests]), strict=True))
    for row, gap, test, barred in made:
        if test and gap and gap.sd is not None:
            p_holm, p_equivalent = next(adjusted)
            row |= {
                "p_generalist": test.generalist.p, "p_specialist": test.specialist.p, "p_holm": p_holm, "p_equivalent": p_equivalent,
                "minimum_detectable_difference": minimum_detectable_difference(
                    gap.sd, study.level, test.generalist.n_candidates, test.specialist.n_candidates, len(tests), row["effective_groups"]
                ),
            }  # fmt: skip
            decided = verdict(test, p_holm, p_equivalent, study.level)
            if decided is None:
                row["reason"] = f"p is too near {1 - study.level:.3g} for {test.n_resamples:,} resamples (`n_test_resamples`): no verdict"
            elif decided in barred:
                row["reason"] = barred[decided]
            else:
                row["verdict"] = decided


def _frame(rows: list[dict[str, Any]], table: type[Table] = tables.Gaps) -> pl.DataFrame:
    columns = tables.columns(table)
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)
