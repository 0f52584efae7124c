"""The baseline that never sees an image: which words of an option, beside which words of a question, are right elsewhere in the data set.

It learns from the other groups of the same split (cross-fitted), so it needs no training split; what it reaches, the texts give away.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

N_FOLDS = 5
FEATURES = 2**20


def log_probabilities(
    questions: Sequence[str], options: Sequence[Sequence[str]], answers: Sequence[int], groups: Sequence[str]
) -> list[list[float]]:
    """Of each option of each question, by a logistic regression on the questions of other groups; all alike where there are none."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import LogisticRegression

    fold = _folds(groups)
    rows = [(place, option) for place, of in enumerate(options) for option in range(len(of))]
    features = FeatureHasher(FEATURES, input_type="string").transform(
        list(_features(questions[place], options[place][option])) for place, option in rows
    )
    right = np.array([answers[place] == option for place, option in rows])
    of_row = np.array([fold[place] for place, _ in rows])
    scores = np.zeros(len(rows))
    for held_out in sorted(set(fold)):
        train = of_row != held_out
        if right[train].any() and not right[train].all():
            model = LogisticRegression(solver="liblinear", max_iter=200, random_state=0).fit(features[train], right[train])
            scores[~train] = model.decision_function(features[~train])
    found = np.split(scores, np.cumsum([len(of) for of in options])[:-1])
    return [[float(value) for value in of - np.logaddexp.reduce(of)] for of in found]


def _folds(groups: Sequence[str]) -> list[int]:
    """The fold of every question: a group is never in two."""
    order = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode()).digest())
    of = {group: number % N_FOLDS for number, group in enumerate(order)}
    return [of[group] for group in groups]


def _features(question: str, option: str) -> Iterator[str]:
    whole = " ".join(option.lower().split())
    words = dict.fromkeys(re.findall(r"\w+", whole))
    yield f"option {whole}"
    for word in words:
        yield f"word {word}"
    for asked in dict.fromkeys(re.findall(r"\w+", question.lower())):
        yield f"{asked} beside {whole}"
