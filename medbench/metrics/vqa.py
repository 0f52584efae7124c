"""Both scorings of an answer side by side: one row of table `scores-vqa`."""

from medbench.metrics.evaluate_modules.vqa_published import scoring as published
from medbench.metrics.evaluate_modules.vqa_strict import scoring as strict


def score(question: str, reference: str, answer: str, closed: bool) -> dict[str, float | bool | None]:
    """Column -> value. A column is named `{metric}_{scoring}`; `parsed` belongs to the strict scoring."""
    own = strict.score(question, reference, answer, closed)._asdict()
    theirs = published.score(reference, answer, closed)._asdict()
    row = {"parsed": own.pop("parsed")}
    return row | {f"{name}_strict": value for name, value in own.items()} | {f"{name}_published": value for name, value in theirs.items()}
