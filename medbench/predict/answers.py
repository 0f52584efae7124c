"""From answers to the table that keeps them: raw text with everything that is needed to score it again."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from medbench import paths, tables


class Answered(NamedTuple):
    """One answer. `finish_reason` is stop, length or repetition."""

    text: str
    finish_reason: str
    n_tokens: int


def table(dataset: str, answers: Sequence[tuple[str, str, int]]) -> pl.DataFrame:
    """Table `predictions-vqa` of answers (text, finish reason, tokens) in the order of the test split."""
    test = tables.read(tables.SamplesVqa, paths.samples(dataset, "test"))
    texts, reasons, counts = (list(column) for column in zip(*answers, strict=True))
    schema = tables.columns(tables.PredictionsVqa)
    kept = test.select("sample_id", "group_id", "answer_type", "is_yes_no", "question", pl.col("answer").alias("reference"))
    return kept.with_columns(
        pl.Series("answer", texts, schema["answer"]),
        pl.Series("finish_reason", reasons, schema["finish_reason"]),
        pl.Series("n_tokens", counts, schema["n_tokens"]),
    )
