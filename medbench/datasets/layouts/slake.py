"""Layout `slake`: SLAKE's English questions, `{train,validation,test}.json` beside the unpacked folder `imgs`.

The answer type is the official one: closed is not yes or no alone. Questions in Chinese are left out first: their images cross splits.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medbench.datasets.layouts import Excluded, Source, Strict, VqaItem
from medbench.datasets.reading import checked, root
from medbench.jobs import limits

FILES = {"train.json": "train", "validation.json": "val", "test.json": "test"}
FIELDS = ("img_name", "question", "answer", "q_lang", "answer_type", "qid")
TYPES = {"open": "open", "closed": "closed"}


class Options(Strict):
    """`language`: en or zh."""

    language: str = "en"


def index_files(options: Options, source: Source) -> list[Path]:
    """The three files of questions."""
    folder = root(source, "train.json", "Slake1.0", "SLAKE")
    for name in FILES:
        if not (folder / name).is_file():
            raise source.error(name, f"does not exist in {folder}", "put the official files there, unpacked")
    return [folder / name for name in FILES]


def items(options: Options, source: Source) -> Iterator[VqaItem | Excluded]:
    """One item a question of the language. A sample is named by its split and its place in the file."""
    for index in index_files(options, source):
        split = FILES[index.name]
        for number, entry in enumerate(_entries(index, source)):
            place = f"{index.name} entry {number + 1}"
            if missing := [field for field in FIELDS if field not in entry]:
                raise source.error(place, f"has no field {missing[0]!r}", "take the official file")
            if entry["q_lang"] != options.language:
                yield Excluded("another language", place)
                continue
            image = source.inside(f"imgs/{entry['img_name']}", place, index.parent)
            kind = checked(TYPES, str(entry["answer_type"]), "answer_type", f"{place} (qid {entry['qid']})", source)
            question, answer = str(entry["question"] or ""), str(entry["answer"] or "")
            yield VqaItem(f"{split}-{number:05d}", str(entry["img_name"]), split, image, place, question, answer, kind)


def _entries(path: Path, source: Source) -> list[dict[str, Any]]:
    try:
        if (size := path.stat().st_size) > limits.MAX_TEXT_BYTES:
            raise source.error(path.name, f"has {size} bytes, at most {limits.MAX_TEXT_BYTES} are read", "take the official file")
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise source.error(path.name, f"cannot be read ({error.strerror})", "make it a file that you may read") from None
    except UnicodeDecodeError as error:
        raise source.error(path.name, f"is not UTF-8 (byte 0x{error.object[error.start]:02x})", "download it again") from None
    except (ValueError, RecursionError) as error:  # no JSON, a number of thousands of digits; lists in lists in lists
        raise source.error(path.name, f"is no JSON ({error})", "download it again") from None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise source.error(path.name, "is no list of questions", "take the official file")
    return found
