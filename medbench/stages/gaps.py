"""Gaps of a run: RQ1-RQ4 per family, the global view, and pooled over data sets, from the intervals of its cells."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables, tasks
from medbench.analysis import lettered, validation
from medbench.analysis.controls import control_table
from medbench.analysis.gaps import (
    QUESTIONS,
    Estimate,
    Pair,
    Study,
    Unpaired,
    confirmatory_table,
    global_table,
    pooled_table,
    rq_table,
    with_a_choice,
)
from medbench.cells import Candidate, Cell, candidates, grid
from medbench.errors import MedbenchError
from medbench.jobs import files
from medbench.jobs.stage import Needs, Stage
from medbench.metrics.measure import Measure
from medbench.stages import interval
from medbench.stats.resamples import Resamples
from medbench.stats.table import Scored, estimates, replicates

SCHEMAS = {
    "confirmatory": tables.Confirmatory, "pooled": tables.PooledGaps, "controls": tables.Controls, "pairs": tables.Pairs,
    "roles": tables.Roles, "variation": tables.Variation, "reliability": tables.Reliability,
}  # fmt: skip

if TYPE_CHECKING:
    from medbench.config import Config


class Params(NamedTuple):
    """What changes the gaps besides the intervals."""

    candidates: tuple[tuple[str, str, str, tuple[str, ...]], ...]  # model, family, role, data sets in its domain
    cells: tuple[tuple[str, str, str], ...]  # the run's grid; one without intervals is missing
    tasks: dict[str, str]  # data set -> task
    primary: dict[str, tuple[str, str, str]]  # task -> the measure that decides
    margin: dict[str, float]  # task -> equivalence margin
    chance: dict[str, float | None]  # task -> its value when guessing
    off_the_shelf: str | None  # the run's first zero-shot mode
    adapted: tuple[str, ...]  # its other modes
    seed: int
    n_resamples: int
    n_test_resamples: int
    level: float
    min_groups: int
    validated: tuple[tuple[str, str, str], ...] = ()  # of cells whose side has several models, those with predictions of validation data
    thoughts: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType({})  # of their models that are asked: marks of thoughts
    certified: tuple[tuple[str, str, str], ...] = ()  # and those whose certificate says what they reach on validation data
    fallback: Mapping[str, tuple[str, str, str]] = MappingProxyType({})  # task -> what decides where a cell lacks the primary measure
    controls: tuple[str, ...] = ()  # modes in which models off the shelf do not see their question as it is
    secondary: Mapping[str, tuple[str, str, str]] = MappingProxyType({})  # task -> the measure that decides in comparisons of its own
    secondary_margin: Mapping[str, float] = MappingProxyType({})  # task -> its margin
    judging: Mapping[str, tuple[tuple[str, ...], int]] = MappingProxyType({})  # task -> how its answers are judged
    sizes: Mapping[str, int] = MappingProxyType({})  # model -> parameters; of a run with lettered questions, like what follows
    reliability_threshold: float | None = None


def params(config: "Config", run: str) -> Params:
    """Parameters of a run. Raises MedbenchError for the name of another run."""
    from medbench.stages import validate  # with Pydantic, which the job need not import

    if run != config.run.run:
        raise MedbenchError(f"run {run}", f"the configuration is of run {config.run.run!r}", "give the run's own --configfile")
    chosen = config.run.statistics
    used = sorted({config.datasets[dataset].task for dataset in config.run.datasets})
    zero_shot = [mode for mode in config.run.modes if config.modes[mode].kind == "zero-shot"]
    controls = tuple(mode for mode in zero_shot if getattr(config.modes[mode], "image", "own") != "own")
    made = Params(
        candidates=tuple((one.model, one.family, one.role, tuple(sorted(one.in_domain))) for one in candidates(config)),
        cells=tuple((cell.dataset, cell.model, cell.mode) for cell in grid(config)),
        tasks={dataset: config.datasets[dataset].task for dataset in sorted(config.run.datasets)},
        primary={name: tasks.get(name).primary for name in used},
        margin={name: chosen.margin_of(tasks.get(name).primary.metric) for name in used},
        chance={name: tasks.get(name).chance for name in used},
        off_the_shelf=next((mode for mode in zero_shot if mode not in controls), None),
        adapted=tuple(mode for mode in config.run.modes if mode not in zero_shot),
        seed=config.run.seed,
        n_resamples=chosen.n_resamples,
        n_test_resamples=chosen.n_test_resamples,
        level=chosen.level,
        min_groups=chosen.min_groups,
        fallback={name: other for name in used if (other := tasks.get(name).fallback)},
        controls=controls,
    )
    secondary = {name: measure for name in used if (measure := interval.secondary(config, name))}
    made = made._replace(
        secondary=secondary,
        secondary_margin={name: chosen.margin_of(measure.metric) for name, measure in secondary.items()},
        judging={name: judging for name in used if (judging := interval.judging(config, name)).scorings},
    )
    is_lettered = any(map(tasks.is_lettered, used))
    sizes = {one.model: size for one in candidates(config) if is_lettered and (size := config.models[one.model].about.parameters)}
    made = made._replace(sizes=sizes, reliability_threshold=chosen.reliability_threshold if is_lettered else None)
    choice = with_a_choice(study_of(made))
    validated = tuple(cell for cell in choice if validate.method(config, *cell) and not validate.is_gone(config, *cell))
    return made._replace(
        validated=validated,
        thoughts={
            cell.model: config.models[cell.model].thoughts for cell in validated if tasks.get(config.datasets[cell.dataset].task).asked
        },
        certified=tuple(cell for cell in choice if validate.is_certified(config, *cell)),
    )


def run(params: Params, run: str) -> None:
    """Write `gaps/{run}/{rq1,rq2,rq3,rq4,global,confirmatory,pooled,controls,pairs,roles,variation,reliability}.parquet`."""
    study = study_of(params)
    results = Stored(params)
    families = {question: rq_table(question, study, results) for question in QUESTIONS}
    made = {
        **families,
        "global": global_table(study, results),
        "confirmatory": confirmatory_table(study, results, results.validation),
        "pooled": pooled_table(
            pl.concat(families.values()), params.level, [*study.primary.values(), *study.fallback.values(), *study.secondary.values()]
        ),
        "controls": control_table(study, params.controls, results),
        "pairs": lettered.pairs_table(study, params.sizes, results),
        "roles": lettered.roles_table(study, params.sizes, results),
        "variation": lettered.variation_table(study, results),
        "reliability": lettered.reliability_table(study, params.controls, params.reliability_threshold or 0.0, results),
    }
    for path in outputs(run):
        tables.write(SCHEMAS.get(path.stem, tables.Gaps), made[path.stem], path)
    for cell in sorted(results.missing):
        print(f"{cell}: no intervals", file=sys.stderr)
    for name, frame in made.items():
        value = next(column for column in ("gap", "gain", "sd", "estimate") if column in frame.columns)
        if n_null := frame[value].null_count():
            print(f"gaps/{run}/{name}: {n_null} of {len(frame)} rows have no {value}; see their reasons", file=sys.stderr)


def outputs(run: str) -> list[Path]:
    """The tables of a run."""
    return [*paths.gaps(run), paths.controls(run), *paths.lettered(run)]


def study_of(params: Params) -> Study:
    """The comparison's part of the parameters."""
    return Study(
        tuple(Candidate(model, family, role, frozenset(in_domain)) for model, family, role, in_domain in params.candidates),
        frozenset(Cell(*cell) for cell in params.cells),
        params.tasks, params.off_the_shelf, params.adapted, params.level, params.min_groups,
        {task: Measure(*primary) for task, primary in params.primary.items()}, params.margin, params.chance,
        {task: Measure(*other) for task, other in params.fallback.items()},
        {task: Measure(*measure) for task, measure in params.secondary.items()}, params.secondary_margin,
    )  # fmt: skip


def inputs(params: Params, run: str) -> list[Path]:
    """Intervals of all cells, what pairs are computed again from where two cells were scored on other samples, and validation values."""
    files = [file for cell in params.cells for file in (paths.intervals(*cell), *tasks.read_by_interval(params.tasks[cell[0]], *cell))]
    files += [paths.judgements(*cell) for cell in params.cells if params.tasks[cell[0]] in params.judging]
    datasets = dict.fromkeys(cell[0] for cell in params.cells)
    files += [file for name in datasets for file in (paths.samples(name, "test"), paths.duplicates(name))]
    files += [paths.validation(*cell) for cell in params.validated if cell in params.cells]
    return [*files, *(paths.adapter_files(*cell)[0] for cell in params.certified if cell in params.cells)]


def code(params: Params) -> tuple[str, ...]:
    """What is used of the tasks: how intervals are read, and how validation answers are scored."""
    of_tests = [use for name in sorted(set(params.tasks.values())) for use in interval.code(name, name in params.judging)]
    scored = sorted({params.tasks[dataset] for dataset, _, _ in params.validated})
    return (*of_tests, *(use for name in scored for use in tasks.get(name).code("score")))


class _Row(NamedTuple):
    estimate: float | None
    low: float | None
    reason: str | None
    sample_digest: str
    n: int
    n_groups: int
    effective_groups: float
    replicates: NDArray[np.float64]  # NaN where undefined


class Stored:
    """Results from the tables on disk, each read once."""

    def __init__(self, params: Params) -> None:
        self.params = params
        named = (*params.primary.values(), *params.fallback.values(), *params.secondary.values())
        self.deciding = {Measure(*measure) for measure in named}
        self.missing: set[Cell] = set()
        self._intervals: dict[Cell, dict[Measure, _Row]] = {}
        self._scored: dict[Cell, Scored] = {}
        self._resamples: dict[str, Resamples] = {}  # of data sets in which a pair is computed again
        self._pairs: dict[tuple[Cell, Cell, Measure], Pair | Unpaired] = {}

    def measures(self, cell: Cell) -> list[Measure]:
        """As `analysis.gaps.Results`."""
        return [measure for measure in self.every(cell) if measure.is_compared]

    def every(self, cell: Cell) -> list[Measure]:
        """As `analysis.lettered.Replicated`."""
        return list(self._rows(cell))

    def drawn(self, cell: Cell, measure: Measure) -> lettered.Drawn | None:
        """As `analysis.lettered.Replicated`."""
        row = self._rows(cell).get(measure)
        return None if row is None or row.estimate is None else lettered.Drawn(row.estimate, row.replicates, row.effective_groups)

    def estimate(self, cell: Cell, measure: Measure) -> Estimate:
        """As `analysis.gaps.Results`."""
        rows = self._rows(cell)
        if measure not in rows:
            return Estimate(None, "no intervals" if cell in self.missing else f"no {measure.metric} ({measure.scoring}, {measure.subset})")
        return Estimate(rows[measure].estimate, rows[measure].reason, rows[measure].low)

    def validation(self, cell: Cell) -> Estimate:
        """What a cell reaches on validation data; a missing table is a reason."""
        if not {tuple(cell)} & {*self.params.validated, *self.params.certified}:
            return Estimate(None, f"mode {cell.mode} says nothing of validation data")
        is_certified = tuple(cell) in self.params.certified
        path = paths.adapter_files(*cell)[0] if is_certified else paths.validation(*cell)
        if not path.exists():
            return Estimate(None, f"{path} does not exist")
        if is_certified:
            return validation.of_certificate(files.read_json(path))
        task = self.params.tasks[cell.dataset]
        return validation.of_predictions(
            task, tables.read(tasks.get(task).predictions, path), path, self.params.thoughts.get(cell.model, ())
        )

    def pair(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
        """As `analysis.gaps.Results`; cells that were scored on other samples are computed again on the samples of both."""
        key = first, second, measure
        if key not in self._pairs:
            self._pairs[key] = self._pair(first, second, measure)
        return self._pairs[key]

    def _rows(self, cell: Cell) -> dict[Measure, _Row]:
        if cell not in self._intervals:
            rows: dict[Measure, _Row] = {}
            if tasks.is_finished(self.params.tasks[cell.dataset], *cell):
                frame = tables.read(tables.Intervals, paths.intervals(*cell)).filter(pl.col("method") == "percentile")
                drawn = frame["replicates"]
                flat = drawn.explode(empty_as_null=False).fill_null(np.nan).to_numpy()
                arrays = np.split(flat, drawn.list.len().cum_sum().to_numpy())[:-1]
                names, fields = frame.select(Measure._fields), frame.select(_Row._fields[:-1])
                for name, values, array in zip(names.iter_rows(), fields.iter_rows(), arrays, strict=True):
                    rows[Measure(*name)] = _Row._make([*values, array])
            else:
                self.missing.add(cell)
            self._intervals[cell] = rows
        return self._intervals[cell]

    def _pair(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
        a, b = self._rows(first)[measure], self._rows(second)[measure]
        if a.sample_digest != b.sample_digest:
            return self._pair_again(first, second, measure)
        if a.estimate is None or b.estimate is None:
            return Unpaired(f"{first}: {a.reason}" if a.estimate is None else f"{second}: {b.reason}")
        if len(a.replicates) != len(b.replicates):
            return Unpaired(f"{first} has {len(a.replicates)} resamples, {second} {len(b.replicates)}")
        return Pair(a.estimate, b.estimate, a.replicates - b.replicates, a.n, a.n_groups, a.effective_groups)

    def _pair_again(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
        """Drop from both what is null in one; the resamples stay those of the whole test set."""
        try:
            a, b = self._read(first), self._read(second)
        except MedbenchError as error:
            return Unpaired(str(error))
        both = a.used(measure) & b.used(measure)  # both are of the test split, in its order
        size = self.params.n_test_resamples if measure in self.deciding else self.params.n_resamples
        resamples = self._resamples.setdefault(first.dataset, Resamples(self.params.seed, first.dataset, len(a.groups)))
        sides = [cell.without(~both) for cell in (a, b)]
        values = [estimates(cell, [measure])[measure] for cell in sides]
        if np.isnan(values).any():
            return Unpaired(f"{first} and {second}: {sides[int(np.isnan(values[1]))].why_undefined(measure)} that both have")
        drawn = [replicates(cell, [measure], resamples, max(size, self.params.n_resamples))[measure] for cell in sides]
        n_groups, effective = a.groups.count(both), sides[0].effective_groups(measure)
        return Pair(values[0], values[1], drawn[0] - drawn[1], int(both.sum()), n_groups, effective)

    def _read(self, cell: Cell) -> Scored:
        if cell not in self._scored:
            task = self.params.tasks[cell.dataset]
            self._scored[cell] = interval.read(task, *cell, judged=self.params.judging.get(task, ()))
        return self._scored[cell]


STAGE = Stage(
    name="gaps",
    keys=("run",),
    params=params,
    inputs=inputs,
    outputs=outputs,
    run=run,
    uses=code,
    needs=lambda config, *names: Needs(memory_mb=2000, minutes=60),
    is_handed=True,
)
