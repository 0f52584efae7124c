"""Predict lettered questions with whatever answers questions: letters in every order of the options, and the answer in the first order."""

import hashlib
from typing import Any, cast

import polars as pl

from medbench.adapt.asked import AskedChoices, Said
from medbench.datasets import stored
from medbench.datasets.images import decode
from medbench.jobs.partial import Journal, Work
from medbench.jobs.progress import track
from medbench.models import answering
from medbench.models.answering import Answer, Answerer, Choices, Questions
from medbench.models.asking import Choosing
from medbench.models.checkpoint import Source
from medbench.predict.answers import asked, table
from medbench.predict.generative import blank, shuffled
from medbench.predict.job import Params


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table of predictions of the test split. A model that tells no probabilities of letters has its answers alone."""
    assert params.source is not None and params.asking is not None, "this method asks a model"
    test, put = cast(AskedChoices, asked(params.task, dataset)), Choosing(**params.asking)
    shifts = [
        orders(len(options), is_positional, put.rotations, f"{params.seed}/{dataset}/{name}")
        for name, options, is_positional in zip(test.sample_ids, test.options, test.is_positional, strict=True)
    ]
    texts = [
        [put.text(question, options[shift:] + options[:shift]) for shift in of]
        for question, options, of in zip(test.questions, test.options, shifts, strict=True)
    ]
    questions = _questions(dataset, test, [of[0] for of in texts], _images(params, dataset, test), params, put.max_new_tokens)
    choices = Choices(questions, texts, [len(options) for options in test.options])
    answerer = answering.load(Source(**params.source))
    work.found["weights"], answerer.told = answerer.weights, work.beside
    name = f"{dataset}/{model}/{mode}"
    with work.journal(answerer.weights) as journal:
        letters = _letters(answerer, choices, journal, work, f"predict {name}, letters")
        answers = _answers(answerer, questions, journal, work, f"predict {name}, answers")
    work.found |= answerer.facts(questions, answers)
    said = [Said(shifts[place], letters.get(place), *answers[place]) for place in range(len(texts))]
    return table(params.task, dataset, said)


def orders(n: int, is_positional: bool, rotations: int, key: str) -> list[int]:
    """By how much `n` options are turned, in each order: evenly spread from a start that `key` draws.

    Not at all where they speak of others.
    """
    if is_positional or not rotations:
        return [0]
    start, several = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"), min(rotations, n)
    return [(start + turn * n // several) % n for turn in range(several)]


def _images(params: Params, dataset: str, test: AskedChoices) -> list[list[str]]:
    if params.image == "none":
        return [[] for _ in test.image_ids]
    if params.image == "shuffled":
        return shuffled(dataset, test, params.seed or 0)
    return test.image_ids


def _questions(
    dataset: str, test: AskedChoices, texts: list[str], images: list[list[str]], params: Params, max_new_tokens: int
) -> Questions:
    return Questions(
        [f"sample {name}" for name in test.sample_ids],
        texts,
        [next(iter(of), answering.NO_IMAGE) for of in images],
        lambda image_ids, size: stored.images(dataset, image_ids, size),
        blank if params.image == "blank" else decode,
        max_new_tokens,
        [of[1:] for of in images],
    )


def _letters(answerer: Answerer, choices: Choices, journal: Journal, work: Work, what: str) -> dict[int, list[tuple[list[float], float]]]:
    """Place -> letters of every order; nothing where the model tells none."""
    if not answerer.tells_letters(max(choices.n_options)):
        return {}
    found = _kept(journal, "letters")
    for group in track(answerer.letters(choices, found, work.microbatching), what, len(choices.texts), len(found), len):
        letters = [[one.log_probabilities for one in of] for of in group.values()]
        _keep(journal, {"place": list(group), "letters": letters, "mass": [[one.mass for one in of] for of in group.values()]})
    return {place: list(zip(row["letters"], row["mass"], strict=True)) for place, row in _kept(journal, "letters").items()}


def _answers(answerer: Answerer, questions: Questions, journal: Journal, work: Work, what: str) -> dict[int, Answer]:
    """Place -> answer to the first order."""
    found = {} if work.beside.get("retry") else _kept(journal, "text")
    for group in track(answerer.answers(questions, found, work.microbatching), what, len(questions.texts), len(found), len):
        columns = dict(zip(Answer._fields, map(list, zip(*group.values(), strict=True)), strict=True))
        _keep(journal, {"place": list(group), **columns})
    return {place: Answer(**row) for place, row in _kept(journal, "text").items()}


def _kept(journal: Journal, column: str) -> dict[int, dict[str, Any]]:
    """Place -> the rest of its row, of the tables of a journal that have a column."""
    return {row.pop("place"): row for kept in journal if column in kept.column_names for row in kept.to_pylist()}


def _keep(journal: Journal, columns: dict[str, list[Any]]) -> None:
    journal.append(pl.DataFrame(columns).to_arrow())
