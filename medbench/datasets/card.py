"""The data card: what `prepare` found in a data set and what it did with it. Holds no time and no folder: equal data, equal card."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from medbench import tasks
from medbench.datasets import sharing
from medbench.datasets.equals import Joined
from medbench.datasets.layouts import SPLITS, Demographics
from medbench.datasets.rows import Drop, Reader
from medbench.tasks.reading import with_images

EXAMPLES = 5


class Validation(NamedTuple):
    """Where the validation split comes from."""

    origin: str  # official | cut from train
    share: float | None = None  # of train's groups, as configured
    stratified_by: str | None = None


class Prepared(NamedTuple):
    """What the card describes."""

    dataset: str
    task: str
    classes: tuple[str, ...]
    reader: Reader  # what it left out, changed and noted
    changes: dict[str, list[str]]  # why an image was converted -> places
    scale: dict[str, Any]  # of images of more than 8 bits
    equal: Joined
    drops: list[Drop]
    published: dict[str, pl.DataFrame]  # split -> samples, before a validation split was cut
    splits: dict[str, pl.DataFrame]  # split -> samples, as written
    validation: Validation
    digests: pl.DataFrame  # image_id, pixel_digest
    files: dict[str, str]  # file name -> SHA-256


def card(found: Prepared) -> dict[str, Any]:
    """Counts, drops, conversions, repeats within splits, what splits share, digests: JSON-able."""
    splits = {split: _split(found, split) for split in SPLITS}
    return {
        "dataset": found.dataset,
        "task": found.task,
        "classes": list(found.classes),
        "rows_read": len(found.equal.rows) + len(found.drops),
        "notes": list(found.reader.notes),
        "splits": splits,
        "classes_absent": {split: [name for name, n in counts["classes"].items() if not n] for split, counts in splits.items()}
        if found.classes
        else {},
        "validation": found.validation._asdict(),
        "excluded": _counted(dict(sorted(found.reader.excluded.items()))),
        "texts": _counted(found.reader.changed_texts),
        "equal_images": _counted({"put into one group": found.equal.places} if found.equal.places else {}),
        "drops": _drops(found.drops),
        "images": {
            "distinct": found.digests.height,
            "converted": {why: {"images": len(places), "examples": places[:EXAMPLES]} for why, places in found.changes.items()},
            **({"scale": found.scale} if found.scale else {}),
        },
        "repeats": {split: _repeats(with_images(frame), found.digests) for split, frame in found.splits.items()},
        "shared": _shared(found.dataset, found.splits, found.digests),
        "shared_as_published": _shared(found.dataset, found.published, found.digests),
        "files": found.files,
    }


def remarks(card: Mapping[str, Any]) -> list[str]:
    """What a person should know of how a set was read, beside the rows that were dropped, a line each."""
    found = list(card.get("notes", ()))
    for part, said in (("texts", "{}"), ("equal_images", "equal images of different groups were {}")):
        found += [f"{said.format(what)}: {_examples(rows)}" for what, rows in card.get(part, {}).items()]
    absent = {split: names for split, names in card.get("classes_absent", {}).items() if names and card["splits"][split]["samples"]}
    return found + [f"{split} has no sample of {', '.join(names)}" for split, names in absent.items()]


def losses(card: Mapping[str, Any]) -> list[str]:
    """Why rows were dropped, a line each."""
    return [f"left out, {what.replace('-', ' ')}: {_examples(rows)}" for what, rows in card["drops"].items()]


def _examples(found: Mapping[str, Any]) -> str:
    return f"{found['rows']} {'row' if found['rows'] == 1 else 'rows'} (first: {found['examples'][0]})"


def _counted(places_of: Mapping[str, list[str]]) -> dict[str, Any]:
    return {what: {"rows": len(places), "examples": places[:EXAMPLES]} for what, places in places_of.items()}


def _split(found: Prepared, split: str) -> dict[str, Any]:
    frame = found.splits[split]
    images = with_images(frame)["image_id"].n_unique()
    counts: dict[str, Any] = {"samples": frame.height, "groups": frame["group_id"].n_unique(), "images": images}
    people = {name: dict(sorted(Counter(frame[name].drop_nulls()).items())) for name in Demographics._fields}
    if any(people.values()):
        counts["demographics"] = {name: of for name, of in people.items() if of}
    return {**counts, **tasks.get(found.task).counts(frame, found.classes)}


def _drops(drops: list[Drop]) -> dict[str, Any]:
    return {
        reason: {
            "rows": len(of_reason),
            "splits": dict(sorted(Counter(drop.split for drop in of_reason).items())),
            "examples": [f"{drop.place}: {drop.detail}" for drop in of_reason[:EXAMPLES]],
        }
        for reason in sorted({drop.reason for drop in drops})
        if (of_reason := [drop for drop in drops if drop.reason == reason])
    }


def _repeats(frame: pl.DataFrame, digests: pl.DataFrame) -> dict[str, Any]:
    return {
        kind: {"samples": len(ids), "examples": ids.head(EXAMPLES).to_list()}
        for kind, ids in sharing.repeats(frame, digests).items()
        if len(ids)
    }


def _shared(dataset: str, splits: dict[str, pl.DataFrame], digests: pl.DataFrame) -> list[dict[str, Any]]:
    return (
        sharing.shared([sharing.uses(dataset, split, with_images(frame), digests) for split, frame in splits.items()])
        .drop("dataset", "other_dataset")
        .to_dicts()
    )
