"""Both scorings of an answer side by side: one row of table `scores-vqa`."""

from medbench.metrics.evaluate_modules.vqa_published import scoring as published
from medbench.metrics.evaluate_modules.vqa_strict import scoring as strict
from medbench.metrics.evaluate_modules.vqa_strict.words import THINK, Tags


def score(
    question: str, reference: str, answer: str, closed: bool, finish_reason: str = "stop", thoughts: Tags = THINK
) -> dict[str, float | str | None]:
    """Column -> value. A column is named `{metric}_{scoring}`; `state` belongs to the strict scoring."""
    own = strict.score(question, reference, answer, closed, finish_reason, thoughts)._asdict()
    theirs = published.score(reference, answer, closed)._asdict()
    row = {"state": own.pop("state")}
    return row | {f"{name}_strict": value for name, value in own.items()} | {f"{name}_published": value for name, value in theirs.items()}
