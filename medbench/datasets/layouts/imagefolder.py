"""Layout `imagefolder`: `{split}/{class}/...` or `{class}/...`; the latter is split by a seeded choice of groups.

In a class folder all but folders, at any depth, are images, names that begin with a dot apart. Without `group` each file is a group.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from medbench.datasets.layouts import SPLITS, DiagnosisItem, Item, Source, Strict, held_out, strata


def _pattern(value: str) -> str:
    if re.compile(value).groups != 1:
        raise ValueError("needs exactly one pair of parentheses around the group's name")
    return value


class Options(Strict):
    """`group`: a regular expression whose parentheses find the group (patient, say) in a file's path below its class;
    `test`: share of the groups for test where the folders name no split."""

    group: Annotated[str, AfterValidator(_pattern)] | None = None
    test: float = Field(0.3, gt=0, lt=1)


def index_files(options: Options, source: Source) -> list[Path]:
    """The folders: a file added or removed changes its folder's time."""
    return [source.folder, *(path for path in sorted(source.folder.rglob("*")) if path.is_dir() and not _hidden(path, source.folder))]


def items(options: Options, source: Source) -> Iterator[Item]:
    """One item a file, in the order of the paths."""
    if source.rows != "labels":
        raise source.error("layout imagefolder", f"gives labels, the task is {source.task}", "use layout table or hub-vqa")
    names = [path.name for path in _entries(source.folder)]
    if any(name in SPLITS for name in names):
        for folder in _entries(source.folder):
            yield from _items(folder, folder.name, options, source)
        return
    found = list(_items(source.folder, "", options, source))
    test = held_out(strata([(item.group_id, item.label) for item in found]), options.test, f"{source.seed}/{source.dataset}/test")
    for item in found:
        yield item._replace(split="test" if item.group_id in test else "train")


def _items(folder: Path, split: str, options: Options, source: Source) -> Iterator[DiagnosisItem]:
    """The files of all class folders in `folder`."""
    for of_class in _entries(folder):
        if not of_class.is_dir():
            raise source.error(
                of_class.relative_to(source.folder).as_posix(), "is a file where folders of classes are expected", "move it away"
            )
        for file in sorted(of_class.rglob("*")):
            if not file.is_dir() and not _hidden(file, of_class):  # a pipe or a broken link too: `prepare` says what is wrong with it
                name = file.relative_to(source.folder).as_posix()
                yield DiagnosisItem(name, _group(file, of_class, name, options, source), split, file, name, of_class.name)


def _group(file: Path, of_class: Path, name: str, options: Options, source: Source) -> str:
    if options.group is None:
        return name
    match = re.search(options.group, file.relative_to(of_class).as_posix())
    if match is None:
        raise source.error(name, f"the pattern {options.group} finds no group in it", "fix options.group")
    return match[1]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
