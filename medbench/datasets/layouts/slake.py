"""Layout `slake`: SLAKE's English questions, `{train,validation,test}.json` beside the unpacked folder `imgs`.

The answer type is the official one: closed is not yes or no alone. Questions in Chinese are left out first: their images cross splits.
"""

from collections.abc import Iterator
from pathlib import Path

from medbench.datasets.layouts import Excluded, Skill, Source, Strict, VqaItem
from medbench.datasets.reading import checked, json_entries, root

FILES = {"train.json": "train", "validation.json": "val", "test.json": "test"}
FIELDS = ("img_name", "question", "answer", "q_lang", "answer_type", "qid")
TYPES = {"open": "open", "closed": "closed"}
SKILLS = {"vqa": Skill("understanding", "mapped"), "kvqa": Skill("knowledge", "mapped")}  # kvqa: asked of a knowledge graph


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
        for number, entry in enumerate(json_entries(index, source)):
            place = f"{index.name} entry {number + 1}"
            if missing := [field for field in FIELDS if field not in entry]:
                raise source.error(place, f"has no field {missing[0]!r}", "take the official file")
            if entry["q_lang"] != options.language:
                yield Excluded("another language", place)
                continue
            image = source.inside(f"imgs/{entry['img_name']}", place, index.parent)
            kind = checked(TYPES, str(entry["answer_type"]), "answer_type", f"{place} (qid {entry['qid']})", source)
            question, answer = str(entry["question"] or ""), str(entry["answer"] or "")
            skill = SKILLS.get(str(entry.get("base_type")), Skill())
            yield VqaItem(f"{split}-{number:05d}", str(entry["img_name"]), split, image, place, question, answer, kind, skill=skill)
