"""Layout `pmc-vqa`: the test sets of PMC-VQA, a CSV file beside the unpacked figures. They are different sets of questions, so each is a
data set of its own: `v1` (test.csv), `test-clean` (test_clean.csv, checked by people), `v2` (test_2.csv).

A figure is a group. The caption, which contains the answer, is never read. Rows whose letters or texts contradict each other are left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from medbench.datasets.layouts import ChoiceItem, Excluded, Source, Strict, one_of
from medbench.datasets.reading import Row, csv_rows, root

FILES = {"v1": ("test.csv", "images"), "test-clean": ("test_clean.csv", "images"), "v2": ("test_2.csv", "figures")}
"""Version -> file, folder of its figures."""
LETTERS = "ABCD"
CHOICES = tuple(f"Choice {letter}" for letter in LETTERS)
LABELLED = re.compile(r"\s*([A-Z])\s*:\s*(.*)", re.DOTALL)
QUOTES = ("'", '"')


class Options(Strict):
    """`version`: v1, test-clean or v2; `images`: folder of the figures in `raw_dir`, where it has another name than the archive's."""

    version: Annotated[str, one_of(FILES)]
    images: str | None = None


def index_files(options: Options, source: Source) -> list[Path]:
    """The table of the version."""
    name = FILES[options.version][0]
    return [root(source, name, "PMC-VQA") / name]


def items(options: Options, source: Source) -> Iterator[ChoiceItem | Excluded]:
    """One item a question; all are for test."""
    (index,) = index_files(options, source)
    folder, is_second = options.images or FILES[options.version][1], options.version == "v2"
    columns = ("Figure_path", "Question", *CHOICES, "Answer", *(() if is_second else ("Answer_label",)))
    for number, row in enumerate(csv_rows(index, columns, source)):
        if fault := _fault(row, is_second):
            yield Excluded(f"malformed: {fault}", row.place)
            continue
        values = row.values
        texts = tuple(_labelled(values[choice])[1] for choice in CHOICES)
        label = values["Answer" if is_second else "Answer_label"].strip()
        image = source.inside(f"{folder}/{values['Figure_path']}", row.place, index.parent)
        name = f"{options.version}-{number:06d}"
        yield ChoiceItem(name, values["Figure_path"], "test", (image,), row.place, values["Question"].strip(), texts, label)


def has_train(options: Options, source: Source) -> bool:
    """No question is for training."""
    return False


def _fault(row: Row, is_second: bool) -> str:
    """What is wrong with a row; empty where nothing is."""
    values = row.values
    choices = [_labelled(values[choice]) for choice in CHOICES]
    label = values["Answer" if is_second else "Answer_label"].strip()
    if [letter for letter, _ in choices] != list(LETTERS):
        return "its choices are not lettered A, B, C, D"
    if label not in LETTERS or len(label) != 1:
        return "its answer is no letter of a choice"
    if any(not re.search(r"\w", text) or text.strip(" .").lower() in ("n/a", "na") for _, text in choices):
        return "a choice is empty"
    if any(text.count(quote) == 1 and (text.endswith(quote) or text.startswith(quote)) for _, text in choices for quote in QUOTES):
        return "a quotation mark is open"
    if not is_second and _plain(values["Answer"]) != _plain(choices[LETTERS.index(label)][1]):
        return "its answer is not the choice that it names"
    return ""


def _labelled(choice: str) -> tuple[str, str]:
    """A choice's letter and text; no letter where it has none."""
    found = LABELLED.fullmatch(choice.strip())
    return (found[1], found[2].strip()) if found else ("", choice.strip())


def _plain(text: str) -> str:
    return " ".join(re.split(r"\W+", text.lower())).strip()
