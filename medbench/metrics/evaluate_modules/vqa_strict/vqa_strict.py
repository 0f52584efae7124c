"""Strict scores of answers to visual questions: SQuAD-style token overlap, ROUGE-L, BLEU-1, and closed accuracy by reading a choice."""

# One import a line: `evaluate` reads them one by one, and takes along the files that are named here alone.
import datasets
import evaluate

from .choices import read_choice as read_choice
from .cues import CUES as CUES
from .options import options_of as options_of
from .scoring import score
from .statements import clauses as clauses
from .terms import EMPTY as EMPTY
from .words import STATES, THINK, Tags

_INPUTS = """
Args:
    predictions: answers
    references: reference answers
    questions: the questions, which name a closed question's alternatives
    closed: whether each question is closed
    finish_reasons: why each answer ended: stop (the default), length, repetition, refusal, filter
    thoughts: pairs of the model's marks around its thoughts
Returns:
    a mean a metric, over the answers it is defined for, None where there is none; of closed answers the share of each state, and their
    accuracy where those without a choice are left out
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

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        questions: list[str],
        closed: list[bool],
        finish_reasons: list[str] | None = None,
        thoughts: Tags = THINK,
    ) -> dict[str, float | None]:
        reasons = finish_reasons or ["stop"] * len(predictions)
        samples = zip(questions, references, predictions, closed, reasons, strict=True)
        rows = [score(*sample, thoughts) for sample in samples]
        columns = {name: [getattr(row, name) for row in rows] for name in rows[0]._fields if name != "state"}
        columns |= {state: [None if row.state is None else float(row.state == state) for row in rows] for state in STATES}
        columns["closed_accuracy_parsed"] = [row.closed_accuracy if row.state == "parsed" else None for row in rows]
        defined = {name: [value for value in column if value is not None] for name, column in columns.items()}
        return {name: sum(values) / len(values) if values else None for name, values in defined.items()}
