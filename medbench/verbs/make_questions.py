"""Make questions from clinical notes by a language model: an open and a closed one a note, checked, with a sheet to review.

NOTES is FairVLMed's data_summary.csv, or a CSV with the columns `filename` (of the image), `note` and `use` (training, validation, test).
The folder gets vqa_train.csv, vqa_validation.csv and vqa_test.csv, which layout fairvlmed-vqa reads, review.csv, and made.json: by which
model, prompt and notes they were made, and why notes were left out. Notes are about patients: they leave this machine only with --send.

Example: python -m medbench make-questions data_summary.csv questions --model my-server --send
"""

import argparse
import csv
import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from medbench.command import add_config_options, read_config
from medbench.config import require_architecture, sources
from medbench.datasets.layouts import Source
from medbench.datasets.reading import csv_rows
from medbench.errors import MedbenchError, choose
from medbench.jobs import digests, files
from medbench.judging import asking, questions
from medbench.judging.questions import Note, Pair
from medbench.tables.spreadsheet import defused

SPLITS = {"training": "train", "train": "train", "validation": "validation", "val": "validation", "test": "test"}
FOLDERS = {"train": "Training", "validation": "Validation", "test": "Test"}
COLUMNS = ("gpt_summary", "filename", "image_path", "question type", "question", "answer")
REVIEWED = 100
"""Notes on the sheet."""


class Row(NamedTuple):
    """A note with its split and the summary that stands in the table beside it."""

    note: Note
    split: str
    summary: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("notes", type=Path, help="CSV of notes")
    parser.add_argument("folder", type=Path, help="where the questions go")
    parser.add_argument("--model", required=True, help="of the registry: an endpoint or a generative model")
    parser.add_argument("--send", action="store_true", help="the notes may be sent to the model's endpoint")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="of a reply (default: 512)")
    add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Raises MedbenchError for notes that cannot be read, and where they would be sent without leave."""
    config = read_config(args)
    if args.model not in config.models:
        raise MedbenchError(f"model {args.model}", "is in no registry", choose(args.model, config.models))
    require_architecture(config, args.model, "make-questions")
    if config.models[args.model].kind == "remote" and not args.send:
        said = f"model {args.model} is an endpoint, and notes are about patients"
        raise MedbenchError(args.notes, said, "give --send where they may be sent there")
    rows = read_notes(args.notes)
    judge = asking.Judge(args.model, sources.source(config, args.model), args.max_new_tokens)
    answerer = asking.load(judge, sources.reached(config, args.model))
    found: dict[str, Pair] = {}
    for note, pair in questions.make(answerer, [row.note for row in rows], args.max_new_tokens):
        found[note.name] = pair
        if len(found) % 100 == 0:
            print(f"{len(found):,} of {len(rows):,} notes", flush=True)
    write(args.folder, rows, found, {"model": args.model, "weights": dict(answerer.weights), "notes": digests.file_digest(args.notes)})


def read_notes(path: Path) -> list[Row]:
    """Rows of the table. Raises MedbenchError for a split that is unknown and a name that stands twice."""
    source = Source("notes", "vqa", path.parent, (), 0)
    rows, seen = list[Row](), set[str]()
    for place, values in csv_rows(path, ("filename", "note", "use"), source, ("gpt4_summary",)):
        split = SPLITS.get(values["use"].strip().lower())
        if split is None:
            raise source.error(place, f"use is {values['use']!r}", "give training, validation or test")
        if (name := values["filename"].strip()) in seen or not name:
            raise source.error(place, f"filename {name!r} stands twice or is empty", "give each note a name of its own")
        seen.add(name)
        rows.append(Row(Note(name, values["note"].strip()), split, values.get("gpt4_summary", "").strip()))
    return [row for row in rows if row.note.text]


def write(folder: Path, rows: Sequence[Row], found: dict[str, Pair], facts: dict[str, object]) -> None:
    """The tables, the sheet, and of what they were made; all readable by their owner alone."""
    files.make_folder(folder)
    good = [row for row in rows if not found[row.note.name].fault]
    for split in FOLDERS:
        own = [row for row in good if row.split == split]
        if own:
            _table(folder / f"vqa_{split}.csv", COLUMNS, [line for row in own for line in _lines(row, found[row.note.name])])
    drawn = sorted(good, key=lambda row: hashlib.sha256(row.note.name.encode()).digest())[:REVIEWED]
    random.Random(0).shuffle(drawn)
    header = ("filename", "note", *Pair._fields[:4], "right (yes or no)")
    sheet = pl.DataFrame(
        [(row.note.name, row.note.text, *found[row.note.name][:4], "") for row in drawn],
        schema=dict.fromkeys(header, pl.String),
        orient="row",
    )
    files.write_private(folder / "review.csv", "\ufeff" + defused(sheet).write_csv())
    closed = Counter(found[row.note.name].closed_answer.lower() for row in good)
    left_out = Counter(pair.fault for pair in found.values() if pair.fault)
    made = {
        **facts,
        "prompt": questions.digest(),
        "n_notes": len(rows),
        "n_good": len(good),
        "closed": dict(closed),
        "left_out": dict(left_out),
    }
    files.write_private(folder / "made.json", json.dumps(made, indent=1, sort_keys=True) + "\n")
    why = "; ".join(f"{n:,} because {fault}" for fault, n in left_out.most_common())
    print(f"{folder}: two questions of {len(good):,} of {len(rows):,} notes, closed ones {closed['yes']:,} yes and {closed['no']:,} no")
    print(f"left out: {why or 'none'}. Read review.csv before you use them")


def _lines(row: Row, pair: Pair) -> list[list[str]]:
    image = f"./{FOLDERS[row.split]}/{Path(row.note.name).stem}.npz"
    asked = ("OPEN", pair.open_question, pair.open_answer), ("CLOSED", pair.closed_question, pair.closed_answer)
    return [[row.summary, row.note.name, image, *question] for question in asked]


def _table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from io import StringIO

    text = StringIO()
    csv.writer(text).writerows([header, *rows])
    files.write_private(path, text.getvalue())
