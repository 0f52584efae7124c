"""The baseline that always answers the same: the most frequent training answer to questions of the same form."""

from collections import Counter
from collections.abc import Sequence

from medbench.models.asking import asks_yes_no


class ConstantAnswer:
    """One answer for questions that want yes or no, one for the others. The form is read from the question, not from a reference."""

    def __init__(self, questions: Sequence[str], answers: Sequence[str]) -> None:
        """Counts training answers; ties go to the one that comes first in the data."""
        pairs = [(asks_yes_no(question), answer.strip().lower()) for question, answer in zip(questions, answers, strict=True)]
        every = Counter(answer for _, answer in pairs)
        counts = {form: Counter(answer for found, answer in pairs if found == form) or every for form in (True, False)}
        self._answers = {form: count.most_common(1)[0][0] for form, count in counts.items()}

    def answer(self, question: str) -> str:
        """The constant of the question's form."""
        return self._answers[asks_yes_no(question)]


def fit(questions: Sequence[str], answers: Sequence[str]) -> ConstantAnswer:
    """From at least one training question."""
    return ConstantAnswer(questions, answers)
