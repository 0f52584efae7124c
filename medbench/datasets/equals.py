"""What equal images (of equal pixels, so of equal bytes) mean for the rows of a data set: one group, one split, one label."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medbench.datasets.layouts import ChoiceItem, DiagnosisItem, Source
from medbench.datasets.rows import Drop, Row
from medbench.errors import MedbenchError


class Joined(NamedTuple):
    """Rows whose equal images are in one group; `places` of those that came into another group or split by that."""

    rows: list[Row]
    places: list[str]


def contradictions(rows: Sequence[Row], pixels: Mapping[str, str]) -> list[Drop]:
    """Rows of equal images with different labels, or with different closed answers to one question: nobody knows which is right.

    `pixels`: image id -> digest of its pixels.
    """
    meanings: dict[tuple[str, str], dict[str, Row]] = {}  # image, question -> label or answer -> first row
    for row in rows:
        if key := _asked(row, pixels):
            meanings.setdefault(key, {}).setdefault(_meaning(row), row)
    drops = []
    for row in rows:
        of_image = meanings.get(_asked(row, pixels) or ("", ""), {})
        if len(of_image) > 1:
            other = next(first for meaning, first in of_image.items() if meaning != _meaning(row))
            word = "label" if isinstance(row.item, DiagnosisItem) else "answer"
            detail = f"its image has the {word} {_shown(row)!r} here and {_shown(other)!r} in {other.item.place}"
            drops.append(Drop(f"contradictory-{word}", row.item.split, row.item.place, detail))
    return drops


def _asked(row: Row, pixels: Mapping[str, str]) -> tuple[str, str] | None:
    """What has one meaning: an image, or a closed question about it; None for an open one, which has several right answers."""
    if isinstance(row.item, DiagnosisItem):
        return pixels[row.images[0]], ""
    if isinstance(row.item, ChoiceItem) or row.item.answer_type != "closed":  # which option is best depends on the others
        return None
    return pixels[row.images[0]], _words(row.item.question)


def _meaning(row: Row) -> str:
    return row.item.label if isinstance(row.item, DiagnosisItem) else _words(row.item.answer)


def _shown(row: Row) -> str:
    return row.item.label if isinstance(row.item, DiagnosisItem) else row.item.answer


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".?! ")


def joined(rows: Sequence[Row], pixels: Mapping[str, str]) -> Joined:
    """The rows with one group for equal images, named by its first row, and with one split for a group where a layout drew the splits."""
    parents: dict[str, str] = {}

    def root(group: str) -> str:
        while (parent := parents.setdefault(group, group)) != group:
            parents[group] = group = parents[parent]
        return group

    first: dict[str, str] = {}
    for row in rows:
        for image in row.images:
            group = root(row.item.group_id)
            parents[group] = root(first.setdefault(pixels[image], group))
    names, splits = dict[str, str](), dict[str, str]()
    found, places = [], []
    for row in rows:
        group = root(row.item.group_id)
        name, split = names.setdefault(group, row.item.group_id), splits.setdefault(group, row.item.split)
        item = row.item._replace(group_id=name, split=split if row.item.is_drawn else row.item.split)
        if item != row.item:
            places.append(item.place)
        found.append(Row(item, row.images))
    return Joined(found, places)


def crossings(rows: Sequence[Row], pixels: Mapping[str, str], source: Source) -> list[MedbenchError]:
    """Rows whose image equals one of another split."""
    first: dict[str, Row] = {}
    found = []
    for row in rows:
        for other in (first.setdefault(pixels[image], row).item for image in row.images):
            if other.split != row.item.split:
                said = f"its image is in {row.item.split} here, and the equal one of {other.place} in {other.split}"
                remedy = "keep one of them, or give both one split, or set allow_group_overlap where the set is published so"
                found.append(source.error(row.item.place, said, remedy))
    return found
