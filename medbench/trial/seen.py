"""What a file or folder seems to be, and what is asked for where that cannot be told."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medbench.datasets.layouts import folded, folded_label
from medbench.datasets.rows import MISSING
from medbench.trial.names import plain

TRACKED = False  # what is proposed here reaches jobs as registry entries
MOST_CLASSES = 20
OVERLAP = "what two splits share, images or patients, is reported and not refused (allow_group_overlap in data.yaml)"
OWN_PATIENTS = "every image counts as a patient of its own (--group REGEX finds patients in file names)"
_NEGATIVE = (
    "no non not normal healthy benign negative absent clear control without false 0"
    " nein kein keine ohne normalbefund gesund gutartig benigne negativ unauffallig unauffaellig fehlt kontrolle falsch"
    " sans aucun aucune sain saine benin negatif normale absente temoin faux"
    " sin ningun ninguna sano sana benigno benigna negativo negativa ausente falso"
    " senza nessun nessuno nessuna assente controllo"
)
NEGATIVE = frozenset(_NEGATIVE.split())
"""Words, as `plain` writes them, of what is not the disease: of two classes the other one is class 1, the positive one. English, German,
French, Spanish and Italian, as the names of columns."""


class Seen(NamedTuple):
    """What a file or folder seems to be: a registry entry without modality, what was told of it in words, and what could not be told."""

    task: str
    layout: str
    raw_dir: Path | None
    options: dict[str, Any]
    classes: tuple[str, ...]
    said: list[str]
    source: dict[str, Any] | None = None  # of what is fetched
    rows: list[tuple[str, ...]] | None = None  # of a table that is to be written, its header first
    modality: str | None = None  # as the files say it
    n: int = 0  # rows or files, as far as they were counted
    names_splits: bool = False  # files say which images are for training: what they have in two splits is reported, not refused


class Ask(Exception):
    """What must be known: the flag that says it, and what it is about."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(f"--columns {column}=NAME: {what}")
        self.column, self.what = column, what


def labels_of(values: Iterable[str]) -> tuple[int, list[str]]:
    """How many values there are, and the labels among them, of several spellings the most usual one; read until there are far too many."""
    spelt, n = dict[str, Counter[str]](), 0
    for n, value in enumerate(values, start=1):  # noqa: B007 - counted
        if name := value.strip():
            spelt.setdefault(folded_label(name), Counter())[name] += 1
        if len(spelt) > 3 * MOST_CLASSES:
            break
    return n, sorted(names.most_common(1)[0][0] for names in spelt.values())


def looks_missing(classes: Sequence[str]) -> list[str]:
    """A sentence for each class whose name stands for a missing value elsewhere."""
    missing = [name for name in classes if folded(name) in MISSING]
    return [f"class {name!r} looks like a value that is missing: give its rows a diagnosis, or remove them" for name in missing]


def ordered(classes: Sequence[str]) -> tuple[str, ...]:
    """Of two classes the positive one second."""
    return tuple(
        sorted(
            classes,
            key=lambda name: (NEGATIVE.isdisjoint(plain(name).split("_")), classes.index(name)) if len(classes) == 2 else (False, 0),
        )
    )
