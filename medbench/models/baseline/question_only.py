"""The baseline that never sees the image: naive Bayes from the words of a question to the training answers."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from medbench.models.asking import asks_yes_no

SMOOTHING = 1.0
"""Added to every count of a word beside an answer (Laplace)."""


class QuestionOnly:
    """One classifier for questions that want yes or no, one for the others. The form is read from the question alone."""

    def __init__(self, questions: Sequence[str], answers: Sequence[str]) -> None:
        """A form without training questions falls back on all of them."""
        pairs = list(zip(questions, answers, strict=True))
        self._classifiers = {form: NaiveBayes([pair for pair in pairs if asks_yes_no(pair[0]) == form] or pairs) for form in (True, False)}

    def answer(self, question: str) -> str:
        """The likeliest training answer to questions of its form."""
        return self._classifiers[asks_yes_no(question)].answer(question)


class NaiveBayes:
    """Multinomial naive Bayes over the distinct words of a question."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Counts words beside answers; answers are compared in lower case and rank by frequency, so ties go to the frequent one."""
        given = [answer.strip().lower() for _, answer in pairs]
        self.answers = [answer for answer, _ in Counter(given).most_common()]
        column = {answer: place for place, answer in enumerate(self.answers)}
        self.row = {word: place for place, word in enumerate(sorted({word for question, _ in pairs for word in words(question)}))}
        counts = np.full((len(self.row), len(self.answers)), SMOOTHING)
        prior = np.zeros(len(self.answers))
        for (question, _), answer in zip(pairs, given, strict=True):
            counts[[self.row[word] for word in words(question)], column[answer]] += 1
            prior[column[answer]] += 1
        self.prior = np.log(prior / prior.sum())
        self.likelihood = np.log(counts / counts.sum(axis=0))

    def answer(self, question: str) -> str:
        """The likeliest training answer; words that no training question has say nothing."""
        known = [self.row[word] for word in words(question) if word in self.row]
        return self.answers[int(np.argmax(self.prior + self.likelihood[known].sum(axis=0)))]


def words(question: str) -> list[str]:
    """The distinct words, in lower case and order of their first use."""
    return list(dict.fromkeys(re.findall(r"\w+", question.lower())))


def fit(questions: Sequence[str], answers: Sequence[str]) -> QuestionOnly:
    """From at least one training question."""
    return QuestionOnly(questions, answers)
