"""Models of lettered questions whose truth is known: one that guesses, one that sees, one that sees and writes what parsers misread."""

import hashlib
import re
import sys
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import polars as pl
import pytest

from medbench import paths, tables
from medbench.cells import Cell, grid
from medbench.config import Config
from medbench.datasets.images import decode
from medbench.jobs.microbatching import Microbatching
from medbench.jobs.partial import Work
from medbench.models.answering import Answer, Answerer, Choices, Letters, Query, Questions
from medbench.stages import duplicates, gaps, interval, overlap, predict, prepare, score
from medbench.tasks.mcq import SamplesMcq

OPTION = re.compile(r"^\(([A-Z])\) (.*)$", re.MULTILINE)
TRAPS = ("({right}) {text}, since ({wrong}) {other} does not fit.", "{right}. {text}\n\n{wrong} is wrong.", r"\boxed{{\text{{{right}}}}}")
Choose = Callable[[Query, str], str]
"""(question with its images, prompt) -> the text of an option of the prompt."""


def drawn(key: str, n: int) -> int:
    """A number below `n`, the same for equal keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % n


def guess(query: Query, prompt: str) -> str:
    """Any option, whatever the image."""
    texts = [text for _, text in OPTION.findall(prompt)]
    return texts[drawn(query.name + prompt, len(texts))]


def guess_by_image(query: Query, prompt: str) -> str:
    """Any option, another one for another image."""
    return guess(query._replace(name=hashlib.sha256(query.image.tobytes() if query.image else b"").hexdigest()), prompt)


def see(datasets: Collection[str]) -> Choose:
    """The right option where the image is that of the question; what is right of another image, if that was ever asked; else a guess."""
    truth: dict[tuple[bytes, str], str] = {}
    for name in datasets:
        pixels = {row["image_id"]: decode(row["image"]).tobytes() for row in pl.read_parquet(paths.images(name)).iter_rows(named=True)}
        for row in tables.read(SamplesMcq, paths.samples(name, "test")).iter_rows(named=True):
            truth[pixels[row["image_id"]], row["question"]] = row["options"][ascii_uppercase.index(row["answer"])]

    def choose(query: Query, prompt: str) -> str:
        stem = OPTION.split(prompt)[0].strip()
        return truth.get((query.image.tobytes(), stem) if query.image else (b"", ""), "") or guess(query, prompt)

    return choose


class Known(Answerer):
    """Chooses by `choose`; writes the letter, or one of the forms `traps`."""

    weights = {"model": "known"}  # noqa: RUF012

    def __init__(self, choose: Choose, traps: tuple[str, ...] = ("({right})",)) -> None:
        self.choose, self.traps = choose, traps

    def tells_letters(self, n: int) -> bool:
        return True

    def letters(self, choices: Choices, done: Collection[int], microbatching: Microbatching) -> Iterator[dict[int, list[Letters]]]:
        for place, query in _asked(choices.questions, done):
            yield {place: [self._letters(query, prompt) for prompt in choices.texts[place]]}

    def answers(self, questions: Questions, done: Collection[int], microbatching: Microbatching) -> Iterator[dict[int, Answer]]:
        for place, query in _asked(questions, done):
            options, chosen = OPTION.findall(query.text), self.choose(query, query.text)
            right, wrong = (next(one for one in options if (one[1] == chosen) is is_right) for is_right in (True, False))
            said = self.traps[place % len(self.traps)].format(right=right[0], text=chosen, wrong=wrong[0], other=wrong[1])
            yield {place: Answer(said, "stop", 3)}

    def _letters(self, query: Query, prompt: str) -> Letters:
        chosen = self.choose(query, prompt)
        return Letters([-0.1 if text == chosen else -9.0 for _, text in OPTION.findall(prompt)], 0.95)


def _asked(questions: Questions, done: Collection[int]) -> Iterator[tuple[int, Query]]:
    for window in questions.windows(16):
        for place in window.places:
            if place not in done:
                yield place, questions.with_images(place, window.images)


def installed(patch: pytest.MonkeyPatch, models: dict[str, Known]) -> dict[str, str]:
    """Model -> the module behind the seam that answers for it."""
    names = {}
    for name, known in models.items():
        module: Any = types.ModuleType(f"medbench.models.remote.known_{name}")
        module.answerer = lambda source, change=None, known=known: known
        patch.setitem(sys.modules, module.__name__, module)
        names[name] = module.__name__
    return names


def run(loaded: Config, modules: dict[str, str]) -> None:
    """All jobs of a run that follow its data."""
    for dataset in loaded.run.datasets:
        duplicates.run(duplicates.params(loaded, dataset), dataset)
    for cell in grid(loaded):
        folder = Path("work") / "-".join(cell)
        folder.mkdir(parents=True)
        predict.run(_told(predict.params(loaded, *cell), cell, modules), *cell, Work(folder))
        score.run(score.params(loaded, *cell), *cell)
        interval.run(interval.params(loaded, *cell), *cell)
    gaps.run(gaps.params(loaded, loaded.run.run), loaded.run.run)


def prepared(loaded: Config) -> None:
    """The data of a run."""
    for dataset in loaded.run.datasets:
        prepare.run(prepare.params(loaded, dataset), dataset)
    overlap.run(overlap.params(loaded, loaded.run.run), loaded.run.run)


def _told(params: predict.Params, cell: Cell, modules: dict[str, str]) -> predict.Params:
    return params._replace(source={**(params.source or {}), "module": modules[cell.model]}) if cell.model in modules else params
