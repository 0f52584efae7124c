"""Answers of services that are kept, and never asked twice: `list`, `export MODEL FILE`, `prune MODEL`.

Example: python -m medbench store list
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from medbench import paths
from medbench.command import new
from medbench.errors import MedbenchError, choose
from medbench.jobs import files
from medbench.remote import store


class Kept(NamedTuple):
    """The answers of one model of one kind of service."""

    folder: Path
    kind: str
    model: str
    answers: int  # requests with a final answer
    unanswered: int  # requests with empty or filtered answers alone
    size: int  # bytes
    first: str
    last: str


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Every answer in a folder of the store, as it was kept."""
    for file in sorted(folder.glob("*.jsonl")):
        with files.written(file):
            yield from store.lines(file)


def kept() -> list[Kept]:
    """All models of the store."""
    found = []
    for folder in sorted(place for place in paths.store().glob("[!.]*") if place.is_dir()):
        final, tried, times, names = set[str](), set[str](), list[str](), ("", "")
        for line in lines(folder):
            (final if line.get("final") else tried).add(str(line["key"]))
            times = [min([str(line.get("time")), *times]), max([str(line.get("time")), *times])]
            names = str(line.get("kind", "")), str(line.get("asked_model", ""))
        size = sum(file.stat().st_size for file in folder.glob("*.jsonl"))
        if times:
            found.append(Kept(folder, *names, len(final), len(tried - final), size, times[0], times[-1]))
    return found


def chosen(model: str) -> Kept:
    """By the name of its folder, or of the model where that is its alone. Raises MedbenchError for another."""
    found = [one for one in kept() if model in (one.folder.name, one.model)]
    if len(found) != 1:
        what = "several services have it" if found else "no answer of it is kept"
        raise MedbenchError(f"store: model {model}", what, choose(model, [one.folder.name for one in kept()]))
    return found[0]


def export(one: Kept, file: Path) -> int:
    """Write all answers of a model into one file, readable by its owner alone: they may be about patients. How many."""
    with files.atomic(file, private=True) as aside, aside.open("wb") as stream:
        return sum(bool(stream.write(store.encoded(line))) for line in lines(one.folder))


def prune(one: Kept, everything: bool) -> tuple[int, list[Path]]:
    """Remove empty and filtered answers of a model, or all of its answers: bytes, and files of live jobs, which are left as they are."""
    before, busy = one.size, []
    for file in sorted(one.folder.glob("*.jsonl")):
        if store.is_written(file):
            busy.append(file)
            continue
        left = [] if everything else [line for line in store.lines(file) if line.get("final")]
        if left:
            with files.atomic(file, private=True) as aside, aside.open("wb") as stream:
                stream.writelines(store.encoded(line) for line in left)
        else:
            file.unlink()
    return before - sum(file.stat().st_size for file in one.folder.glob("*.jsonl")), busy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="every model with its answers")
    exporting = actions.add_parser("export", help="all answers of a model as one file of JSON lines")
    exporting.add_argument("model")
    exporting.add_argument("file", type=new, help="a new file")
    pruning = actions.add_parser("prune", help="remove answers of a model: those that are empty or filtered")
    pruning.add_argument("model")
    pruning.add_argument("--all", action="store_true", help="every answer: each is paid again when it is asked for")


def execute(args: argparse.Namespace) -> None:
    """Do it."""
    if args.action == "list":
        for one in kept():
            counts = f"{one.answers} answers, {one.unanswered} empty or filtered"
            print(f"{one.folder.name}: {one.model}, {counts}, {one.size} bytes, {one.first} to {one.last}")
        if not kept():
            print(f"no answer is kept in {paths.store()}")
        return
    one = chosen(args.model)
    if args.action == "export":
        print(f"wrote {export(one, args.file)} answers to {args.file}: questions and answers may be about patients")
        return
    removed, busy = prune(one, args.all)
    print(f"removed {removed} bytes of {one.folder}")
    for file in busy:
        print(f"{file}: a job writes it, so it was left as it is")
