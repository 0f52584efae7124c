"""Make questions from clinical notes by a language model: an open and a closed one a note, checked, with a sheet to review.

NOTES is FairVLMed's data_summary.csv, or a CSV with the columns `filename` (of the image), `note` and `use` (training, validation, test).
The folder gets vqa_train.csv, vqa_validation.csv and vqa_test.csv, which layout fairvlmed-vqa reads, review.csv, and made.json: by which
model, prompt and notes they were made, and why notes were left out. Delete rows of review.csv, write no into its last column or mend a
question, then give the same command again: nothing is asked, and the tables follow the sheet. Notes are about patients: they leave this
machine only with --send.

Example: python -m medbench make-questions data_summary.csv questions --model my-server --send
"""

import argparse
import csv
import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from medbench.command import add_config_options, given, output, positive, read_config
from medbench.config import require_architecture, require_writer, sources
from medbench.datasets.layouts import Source
from medbench.datasets.reading import csv_rows
from medbench.errors import MedbenchError, choose
from medbench.jobs import digests, files
from medbench.judging import asking, questions, review
from medbench.judging.questions import Note, Pair

SPLITS = {"training": "train", "train": "train", "validation": "validation", "val": "validation", "test": "test"}
FOLDERS = {"train": "Training", "validation": "Validation", "test": "Test"}
COLUMNS = ("gpt_summary", "filename", "image_path", "question type", "question", "answer")
REVIEWED = 100
"""Notes on the sheet."""
LEFT_OUT = "a person left it out"


class Row(NamedTuple):
    """A note with its split and the summary that stands in the table beside it."""

    note: Note
    split: str
    summary: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("notes", type=given, help="CSV of notes")
    parser.add_argument("folder", type=output, help="where the questions go")
    parser.add_argument("--model", required=True, help="of the registry: an endpoint or a generative model")
    parser.add_argument("--send", action="store_true", help="the notes may be sent to the model's endpoint")
    parser.add_argument("--max-new-tokens", type=positive, default=512, help="of a reply (default: 512)")
    add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Raises MedbenchError for notes that cannot be read, and where they would be sent without leave."""
    config = read_config(args)
    if args.model not in config.models:
        raise MedbenchError(f"model {args.model}", "is in no registry", choose(args.model, config.models))
    require_architecture(config, args.model, "make-questions")
    require_writer(config, args.model, "make-questions")
    if config.models[args.model].kind == "remote" and not args.send:
        said = f"model {args.model} is an endpoint, and notes are about patients"
        raise MedbenchError(args.notes, said, "give --send where they may be sent there")
    rows, empty = read_notes(args.notes)
    judge = asking.Judge(args.model, sources.source(config, args.model), args.max_new_tokens)
    answerer = asking.load(judge, sources.reached(config, args.model))
    facts = {"model": args.model, "weights": dict(answerer.weights), "notes": digests.file_digest(args.notes), "prompt": questions.digest()}
    sheet = args.folder / "review.csv"
    shown = _shown(args.folder, facts) if sheet.exists() else None  # before anything is asked
    found: dict[str, Pair] = {}
    for note, pair in questions.make(answerer, [row.note for row in rows], args.max_new_tokens):
        found[note.name] = pair
        if len(found) % 100 == 0:
            print(f"{len(found):,} of {len(rows):,} notes", flush=True)
    if shown is not None:
        notes = {row.note.name: row.note for row in rows}
        left = review.read(sheet, {name: (notes[name], found[name]) for name in shown})
        print(f"{sheet}: {len(left):,} of {len(shown):,} rows are left, {sum(left[name] != found[name] for name in left):,} of them mended")
        found |= {name: left.get(name, found[name]._replace(fault=LEFT_OUT)) for name in shown}
    write(args.folder, rows, found, facts, empty, shown)


def read_notes(path: Path) -> tuple[list[Row], int]:
    """Rows of the table, and how many notes are empty. Raises MedbenchError for a split that is unknown, an image that has no name or two
    notes, and a table without any note."""
    source = Source("notes", "vqa", path.parent, (), 0)
    rows, images = list[Row](), dict[str, str]()
    for place, values in csv_rows(path, ("filename", "note", "use"), source, ("gpt4_summary",)):
        split = SPLITS.get(values["use"].strip().lower())
        if split is None:
            raise source.error(place, f"use is {values['use']!r}", "give training, validation or test")
        name = values["filename"].strip()
        if not (image := Path(name).stem):
            raise source.error(place, f"filename is {name!r}", "name the image or patient that the note belongs to")
        if image in images:
            raise source.error(place, f"filename {name!r} is of the same image as {images[image]}", "give each image one note")
        images[image] = place
        rows.append(Row(Note(name, values["note"].strip()), split, values.get("gpt4_summary", "").strip()))
    if not (kept := [row for row in rows if row.note.text]):
        raise source.error(path.name, f"holds no note ({len(rows):,} rows)", "give a table with texts in column note")
    return kept, len(rows) - len(kept)


def _shown(folder: Path, facts: Mapping[str, object]) -> list[str]:
    """The notes on the sheet in a folder. Raises MedbenchError where it is of other questions: a person's work is never written over."""
    before = files.read_json(folder / "made.json") if (folder / "made.json").exists() else {}
    if {name: before.get(name) for name in facts} != facts or not isinstance(before.get("reviewed"), list):
        found = "is a sheet of other notes, another model or other prompts"
        raise MedbenchError(folder / "review.csv", found, "give another folder, or move it away")
    return list(before["reviewed"])


def write(
    folder: Path, rows: Sequence[Row], found: Mapping[str, Pair], facts: Mapping[str, object], empty: int, shown: list[str] | None
) -> None:
    """The tables, the sheet, and of what they were made; all readable by their owner alone. `shown`: notes on a sheet that is there."""
    files.make_folder(folder)
    good = [row for row in rows if not found[row.note.name].fault]
    for split in FOLDERS:
        own = [row for row in good if row.split == split]
        if own:
            _table(folder / f"vqa_{split}.csv", COLUMNS, [line for row in own for line in _lines(row, found[row.note.name])])
        else:
            (folder / f"vqa_{split}.csv").unlink(missing_ok=True)
    if shown is None:
        drawn = sorted(good, key=lambda row: hashlib.sha256(row.note.name.encode()).digest())[:REVIEWED]
        random.Random(0).shuffle(drawn)
        shown = [row.note.name for row in drawn]
        files.write_private(folder / "review.csv", review.sheet((row.note, found[row.note.name]) for row in drawn))
    closed = Counter(found[row.note.name].closed_answer.lower() for row in good)
    left_out = Counter(pair.fault for pair in found.values() if pair.fault) + Counter({"the note is empty": empty})
    made = {
        **facts,
        "n_notes": len(rows) + empty,
        "n_good": len(good),
        "closed": dict(closed),
        "left_out": dict(left_out),
        "reviewed": shown,
    }
    files.write_private(folder / "made.json", json.dumps(made, indent=1, sort_keys=True) + "\n")
    why = "; ".join(f"{n:,} because {fault}" for fault, n in left_out.most_common())
    n_closed = f"closed ones {closed['yes']:,} yes and {closed['no']:,} no"
    print(f"{folder}: two questions of {len(good):,} of {len(rows) + empty:,} notes, {n_closed}")
    print(f"left out: {why or 'none'}. Read review.csv before you use them, delete or mend rows, and give the same command again")


def _lines(row: Row, pair: Pair) -> list[list[str]]:
    image = f"./{FOLDERS[row.split]}/{Path(row.note.name).stem}.npz"
    asked = ("OPEN", pair.open_question, pair.open_answer), ("CLOSED", pair.closed_question, pair.closed_answer)
    return [[row.summary, row.note.name, image, *question] for question in asked]


def _table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from io import StringIO

    text = StringIO()
    csv.writer(text).writerows([header, *rows])
    files.write_private(path, text.getvalue())
