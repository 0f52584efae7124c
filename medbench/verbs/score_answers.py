"""Score a CSV of answers (question, reference, answer, answer_type) by the published or the strict scoring.

Example: python -m medbench score-answers answers.csv --scoring published
"""

import argparse
from pathlib import Path

import polars as pl

from medbench.command import given
from medbench.datasets.layouts import folded
from medbench.datasets.rows import ANSWER_TYPES
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
    numbered = enumerate(frame.iter_rows(named=True), start=2)
    rows = [(number, row) for number, row in numbered if any(value.strip() for value in row.values())]
    if not rows:
        raise MedbenchError(args.answers, "holds no answers", "give it a row for each answer below its header")
    for number, row in rows:
        if folded(row["answer_type"]) not in ANSWER_TYPES:
            found = f"answer_type {row['answer_type']!r} is unknown"
            raise MedbenchError(f"{args.answers} row {number}", found, f"write one of {', '.join(ANSWER_TYPES)}")
    scoring = evaluate.load(str(FOLDER / f"vqa_{args.scoring}"))
    found = scoring.compute(
        predictions=[row["answer"] for _, row in rows], references=[row["reference"] for _, row in rows],
        questions=[row["question"] for _, row in rows], closed=[folded(row["answer_type"]) == "closed" for _, row in rows],
    )  # fmt: skip
    for name, value in found.items():
        print(f"{name}: {'-' if value is None else f'{value:.4f}'}")
