"""Strict scores of answers to visual questions: SQuAD-style token overlap, ROUGE-L, BLEU-1, and closed accuracy by reading a choice."""

# One import a line: `evaluate` reads them one by one.
import datasets
import evaluate

from .scoring import score

_INPUTS = """
Args:
    predictions: answers
    references: reference answers
    questions: the questions, which name a closed question's alternatives
    closed: whether each question is closed
Returns:
    a mean a metric, over the answers it is defined for; None where there is none
"""


@evaluate.utils.file_utils.add_start_docstrings(__doc__, _INPUTS)
class VqaStrict(evaluate.Metric):  # type: ignore[misc]
    """Strict scores of answers to visual questions: SQuAD-style token overlap, ROUGE-L, BLEU-1, and closed accuracy by reading a choice."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": "string", "references": "string", "questions": "string", "closed": "bool"}
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({name: datasets.Value(kind) for name, kind in features.items()}),
        )

    def _compute(self, predictions: list[str], references: list[str], questions: list[str], closed: list[bool]) -> dict[str, float | None]:
        samples = zip(questions, references, predictions, closed, strict=True)
        rows = [score(question, reference, answer, is_closed) for question, reference, answer, is_closed in samples]
        columns = {name: [getattr(row, name) for row in rows] for name in rows[0]._fields}
        defined = {name: [value for value in column if value is not None] for name, column in columns.items()}
        return {name: sum(values) / len(values) if values else None for name, values in defined.items()}
