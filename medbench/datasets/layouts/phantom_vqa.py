"""Layout `phantom-vqa`: questions about drawn patients of the embedded demo (`medbench.demo.questions`)."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated

from medbench.datasets.layouts import Item, Source, Strict, VqaItem, one_of
from medbench.datasets.layouts.phantom import Patients, encode
from medbench.demo import questions


class Options(Strict):
    """`kind`: one of `questions.KINDS`."""

    kind: Annotated[str, one_of(questions.KINDS)]
    n_patients: Patients


def index_files(options: Options, source: Source) -> list[Path]:
    """None: phantoms are drawn."""
    return []


def items(options: Options, source: Source) -> Iterator[Item]:
    """One item a question; consecutive patients form the splits."""
    if source.rows == "labels":
        raise source.error("layout phantom-vqa", f"asks questions, the task is {source.task}", "use layout phantom")
    splits = options.n_patients.splits()
    patients = groupby(questions.cohort(options.kind, len(splits), source.seed), key=lambda asked: asked.patient)
    for split, (patient, samples) in zip(splits, patients, strict=True):
        for view, asked in groupby(samples, key=lambda sample: sample.index):
            image = None
            for place, sample in enumerate(asked):
                image = image or encode(sample.image)  # once for its questions
                name = f"{patient}-{view}#{place}"
                yield VqaItem(name, patient, split, image, f"phantom {name}", sample.question, sample.answer, sample.answer_type)
