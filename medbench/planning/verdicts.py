"""What a run will be able to say: sets too small for a verdict, the gap that each could show, the questions that it does not ask."""

import math
from collections.abc import Callable
from typing import NamedTuple

from medbench import tasks
from medbench.analysis.gaps import QUESTIONS, Study, adaptations, family_sides
from medbench.config import Config
from medbench.planning.sizes import Size
from medbench.report import answer, params
from medbench.stages import gaps, interval
from medbench.stats.paired import minimum_detectable_difference
from medbench.stats.table import shortage

TRACKED = False  # a look ahead is no part of a result

AUROC, SHARE, CORRELATION = 0.8, 0.7, 0.5
ASSUMED = (
    f"assumed: both sides at an AUROC of {AUROC} or a share of {SHARE} right answers, scores of two models correlated by {CORRELATION}, "
    "as many groups of every class as of the rarest; with 80% power, after the corrections of the hardest comparison"
)


class Outlook(NamedTuple):
    """Of one data set: effective groups behind the measure that decides, whether they are counted, comparisons, and the gap that shows."""

    dataset: str
    measure: str
    groups: float | None
    is_exact: bool
    n_comparisons: int
    detectable: float | None
    no_verdict: str
    """Why there will be none; empty where one is possible."""


def outlooks(config: Config, size: Callable[[str], Size]) -> list[Outlook]:
    """Of every data set of the run."""
    study = gaps.study_of(gaps.params(config, config.run.run))
    said = {dataset: rest for dataset, _, rest in (line.partition(": ") for line in interval.no_verdicts(config))}
    return [_outlook(config, dataset, size(dataset), study, said.get(dataset, "")) for dataset in config.run.datasets]


def _outlook(config: Config, dataset: str, size: Size, study: Study, said: str) -> Outlook:
    least, task = config.run.statistics.min_groups, tasks.get(config.datasets[dataset].task)
    if not said and size.groups is not None and size.groups < least:
        said = f"{shortage(size.groups, least)}, behind its {task.title}"
    compared = _comparisons(dataset, study)
    if not said and not compared:
        said = "nobody is compared on it"
    detectable = None
    if not said and size.groups:
        sd = expected_sd(task.primary.metric, size.groups)
        detectable = max(minimum_detectable_difference(sd, study.level, *counts, size.groups) for counts in compared)
    return Outlook(dataset, task.primary.metric, size.groups, size.is_exact, len(compared), detectable, said)


def _comparisons(dataset: str, study: Study) -> list[tuple[int, int, int]]:
    """Generalists, specialists and rows that share Holm's correction, of every comparison on a data set."""
    found = []
    for question in QUESTIONS:
        for adaptation in adaptations(question, study):
            sides = family_sides(question, adaptation, study)
            found += [(len(one.generalists), len(one.specialists), len(sides)) for one in sides if one.dataset == dataset]
    return found


def expected_sd(metric: str, groups: float) -> float:
    """Of a gap, before anything is measured: Hanley and McNeil (1982) for an AUROC with so many groups of each class, else a share's."""
    if metric == "auroc":
        q1, q2 = AUROC / (2 - AUROC), 2 * AUROC**2 / (1 + AUROC)
        variance = (AUROC * (1 - AUROC) + (groups - 1) * (q1 + q2 - 2 * AUROC**2)) / groups**2
    else:
        variance = SHARE * (1 - SHARE) / groups
    return math.sqrt(2 * (1 - CORRELATION) * variance)


def unasked(config: Config) -> list[str]:
    """A sentence for every question that is not asked, as the report has it."""
    return answer.unasked(params.collect(config))
