"""Layout `imagefolder`: `{split}/{class}/...` or `{class}/...`; the latter is split by a seeded choice of groups.

In a class folder all but folders, at any depth, are images, but for names that begin with a dot and what desktops leave (`Thumbs.db`).
Without `group` each file is a group.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from medbench.datasets.layouts import SPLIT_WORDS, DiagnosisItem, Entry, Item, Note, Source, Strict, drawn_splits
from medbench.errors import MedbenchError
from medbench.jobs import tree

OWN_PATIENTS = Note("every image counts as a patient of its own: where patients have several, set options.group")
LITTER = ("thumbs.db", "desktop.ini", "__macosx", "icon\r", "@eadir", "$recycle.bin")


def _pattern(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression ({error})") from None
    if groups != 1:
        raise ValueError("needs exactly one pair of parentheses around the group's name")
    return value


class Options(Strict):
    """`group`: a regular expression whose parentheses find the group (patient, say) in a file's path below its class;
    `test`: share of the groups for test where the folders name no split."""

    group: Annotated[str, AfterValidator(_pattern)] | None = None
    test: float = Field(0.3, gt=0, le=1)


def index_files(options: Options, source: Source) -> list[Path]:
    """The folders: a file added or removed changes its folder's time."""
    return [source.folder, *tree.folders_below(source.folder, _is_hidden)]


def items(options: Options, source: Source) -> Iterator[Entry]:
    """One item a file, in the order of the paths."""
    if source.rows != "labels":
        raise source.error("layout imagefolder", f"gives labels, the task is {source.task}", "use layout table or hub-vqa")
    if options.group is None:
        yield OWN_PATIENTS
    if _splits(source):
        for folder in _entries(source.folder):
            if folder.is_dir():
                yield from _items(folder, folder.name, options, source)
            else:
                yield _stray(folder, "splits", source)
        return
    found = list[Item]()
    for item in _items(source.folder, "", options, source):
        if isinstance(item, DiagnosisItem):
            found.append(item)
        else:
            yield item
    yield from drawn_splits(found, options.test, source)


def has_train(options: Options, source: Source) -> bool:
    """Whether a folder is for training, or images will be drawn for it."""
    splits = _splits(source)
    return "train" in splits if splits else options.test < 1


def _splits(source: Source) -> set[str]:
    """The splits that the folders in `raw_dir` name; none where they are classes, of whatever name."""
    names = {path.name for path in _entries(source.folder) if path.is_dir() and path.name not in source.classes}
    return {SPLIT_WORDS[name.strip().lower()] for name in names if name.strip().lower() in SPLIT_WORDS}


def _items(folder: Path, split: str, options: Options, source: Source) -> Iterator[DiagnosisItem | MedbenchError]:
    """The files of all class folders in `folder`."""
    for of_class in _entries(folder):
        if not of_class.is_dir():
            yield _stray(of_class, "classes", source)
            continue
        for file in class_files(of_class):
            name = file.relative_to(source.folder).as_posix()
            try:
                yield DiagnosisItem(name, _group(file, of_class, name, options, source), split, file, name, of_class.name)
            except MedbenchError as error:
                yield error


def class_files(folder: Path) -> list[Path]:
    """What counts as images of a class, in the order of the paths; a pipe or a broken link too: `prepare` says what is wrong with it."""
    return tree.files_below(folder, _is_hidden)


def _stray(file: Path, what: str, source: Source) -> MedbenchError:
    return source.error(file.relative_to(source.folder).as_posix(), f"is a file where folders of {what} are expected", "move it away")


def _group(file: Path, of_class: Path, name: str, options: Options, source: Source) -> str:
    if options.group is None:
        return name
    match = re.search(options.group, file.relative_to(of_class).as_posix())
    if match is None:
        raise source.error(name, f"the pattern {options.group} finds no group in it", "fix options.group")
    return match[1]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not _is_hidden(path.name))


def _is_hidden(name: str) -> bool:
    """Whether desktops leave it in folders."""
    return name.startswith(".") or name.lower() in LITTER
