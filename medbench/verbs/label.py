"""People's labels of open answers: write a blind sheet of sampled answers, read it back, and correct the judge's means by it.

Labels are points as in the judge's rubric: 100 the same finding, 75 right but vaguer, 50 partly right, 25 related, 1 wrong. Equal answers
are one row; nothing says which model gave them. Rows without a label are left out.

Example: python -m medbench label demo --sheet labels.csv --n 200
Example: python -m medbench label demo --read labels.csv
"""

import argparse
import math
from pathlib import Path

from medbench import cells, paths, tasks
from medbench.command import add_config_options, given, new, positive, read_config
from medbench.config import Config
from medbench.errors import MedbenchError
from medbench.jobs import files
from medbench.judging import labels
from medbench.judging.labels import Answer, Sheet

HOW = (
    "Write 1 to 100 into column label (100 the same finding, 75 vaguer, 50 partly right, 25 related, 1 wrong), save it as CSV, "
    "then give the same command with --read instead of --sheet."
)
ON_SHEET = 0.25
"""Share of a cell's draw that stands on a sheet at least: of a cell that finished later, some answers do by chance, which are no draw."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_config_options(parser, run=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sheet", type=new, help="write a new sheet of sampled answers, readable by you alone")
    what.add_argument("--read", type=given, help="read the labelled sheet, saved as CSV")
    parser.add_argument("--n", type=positive, default=200, help="answers of all models together (default: 200)")
    parser.add_argument("--scoring", default="strict", choices=("strict", "published"), help="of the judge (default: strict)")


def execute(args: argparse.Namespace) -> None:
    """Raises MedbenchError for a run without open answers, and for a sheet of other answers."""
    config = read_config(args)
    every = _answers(config)
    sheet = labels.read(args.read) if args.read else None
    each = (sheet.drawn if sheet else None) or max(1, math.ceil(args.n / len(every)))
    drawn = {cell: labels.sampled(answers, each, config.run.seed) for cell, answers in every.items()}
    if sheet is None:
        _write(args.sheet, [one for answers in drawn.values() for one in answers], each, len(drawn))
    else:
        _compare(args, sheet, drawn, every, config.run.statistics.level)


def _answers(config: Config) -> dict[cells.Cell, list[Answer]]:
    """Open answers of the run's cells that exist: of models, not of baselines or controls without the image."""
    found = {}
    for cell in cells.grid(config):
        task = config.datasets[cell.dataset].task
        is_own = getattr(config.modes[cell.mode], "image", "own") == "own"
        is_judged = tasks.get(task).judged and is_own and config.models[cell.model].role != "baseline"
        if is_judged and paths.predictions(*cell).exists() and (answers := labels.open_answers(cell, task)):
            found[cell] = answers
    if not found:
        raise MedbenchError(f"run {config.run.run}", "has no open answer yet", "run `snakemake` on data sets with open questions first")
    return found


def _write(path: Path, drawn: list[Answer], each: int, n_cells: int) -> None:
    files.write_private(path, labels.sheet(drawn, each))
    rows = len({one.id for one in drawn})
    print(f"{path}: {rows:,} answers of {n_cells} cells. {HOW}")


def _compare(
    args: argparse.Namespace, sheet: Sheet, drawn: dict[cells.Cell, list[Answer]], every: dict[cells.Cell, list[Answer]], level: float
) -> None:
    given = sheet.labels
    later = [cell for cell, answers in drawn.items() if sum(one.id in sheet.ids for one in answers) < ON_SHEET * len(answers)]
    drawn = {cell: answers for cell, answers in drawn.items() if cell not in later}
    known = {one.id for answers in drawn.values() for one in answers}
    if not (used := given.keys() & known):
        found = f"none of its {len(given):,} labelled answers is among those drawn from the run"
        more = "" if sheet.drawn else " and the --n"
        raise MedbenchError(args.read, found, f"give the run{more} of the sheet; answers that changed need a new sheet")
    if lost := len(given) - len(used):
        other = "" if sheet.drawn else f", or of another --n than {args.n} (its column `drawn` is gone)"
        print(f"{lost:,} labelled answers are left out: changed in the run, or under an edited id{other}")
    if later:
        print(f"not on the sheet, so without labels: {', '.join(map(str, later))}: finished or changed since, or most rows were deleted")
    print(f"{len(used):,} labelled answers; points of 100, {level:.0%} intervals")
    agreed, kappa = labels.against_judge(drawn, given, args.scoring)
    if agreed.n:
        known_as = {"quadratic kappa": kappa, "Krippendorff's alpha": agreed.alpha}
        said = [f"{name} {value:.2f}" for name, value in known_as.items() if value is not None]
        print(f"people and the judge ({args.scoring}): {', '.join(said)}; mean difference {agreed.mean_difference:.1f} points")
    for cell, corrected, mean, n in labels.compare(drawn, every, given, args.scoring, level):
        line = f"  {cell}: {n} labels" + (f", mean {mean:.1f}" if n else "")
        if corrected is not None:
            line += f"; judge {corrected.judged:.1f}"
            if corrected.estimate is not None:
                line += f", corrected by the labels {corrected.estimate:.1f}"
                line += f" [{corrected.low:.1f}, {corrected.high:.1f}]" if corrected.low is not None else ""
            line += f" ({corrected.reason})" if corrected.reason else ""
        print(line)
