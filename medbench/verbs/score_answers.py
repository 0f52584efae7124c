"""Score a CSV of answers (question, reference, answer, answer_type) by the published or the strict scoring.

Example: python -m medbench score-answers answers.csv --scoring published
"""

import argparse
from pathlib import Path

import polars as pl

from medbench.command import given
from medbench.errors import MedbenchError
from medbench.metrics import evaluate_modules

FOLDER = Path(evaluate_modules.__file__).parent
COLUMNS = ("question", "reference", "answer", "answer_type")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("answers", type=given, help=f"columns {', '.join(COLUMNS)}; answer_type is open or closed")
    scorings = sorted(folder.name.removeprefix("vqa_") for folder in FOLDER.glob("vqa_*"))
    parser.add_argument("--scoring", choices=scorings, default="strict", help="an `evaluate` module of medbench/metrics/evaluate_modules")


def execute(args: argparse.Namespace) -> None:
    """One line a metric."""
    import evaluate

    try:
        frame = pl.read_csv(args.answers, infer_schema=False).fill_null("")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MedbenchError(args.answers, f"is no readable CSV ({str(error).splitlines()[0]})", "give a CSV with a header") from None
    if absent := [name for name in COLUMNS if name not in frame.columns]:
        raise MedbenchError(args.answers, f"lacks column {absent[0]!r}", f"give the columns {', '.join(COLUMNS)}")
    scoring = evaluate.load(str(FOLDER / f"vqa_{args.scoring}"))
    found = scoring.compute(
        predictions=frame["answer"].to_list(), references=frame["reference"].to_list(),
        questions=frame["question"].to_list(), closed=(frame["answer_type"] == "closed").to_list(),
    )  # fmt: skip
    for name, value in found.items():
        print(f"{name}: {'-' if value is None else f'{value:.4f}'}")
