"""Layout `medxpertqa`: MedXpertQA-MM, `MM/test.jsonl` beside the unpacked folder `images`; also the rows of its authors' harness.

Options come from their own field; what the question repeats of them is cut off. The skill is the data's own `question_type`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from medbench.datasets.layouts import ChoiceItem, Skill, Source, Strict
from medbench.datasets.reading import Row, checked, field, json_lines, root

TAIL = "\nAnswer Choices:"
SKILLS = {"reasoning": Skill("reasoning", "data"), "understanding": Skill("understanding", "data")}


class Options(Strict):
    """`index`: the table of questions, `images`: the folder of their images, both in `raw_dir`."""

    index: str = "MM/test.jsonl"
    images: str = "images"


def index_files(options: Options, source: Source) -> list[Path]:
    """The table."""
    return [root(source, options.index, "MedXpertQA") / options.index]


def items(options: Options, source: Source) -> Iterator[ChoiceItem]:
    """One item a question; all are for test. Raises MedbenchError for a question without an image: that is none of this set's."""
    folder = root(source, options.index, "MedXpertQA")
    for row in json_lines(folder / options.index, source):
        name, question = str(field(row, "id", source)), str(field(row, "question", source))
        texts = _options(field(row, "options", source), row, source)
        label = field(row, "label", source)
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
        images = field(row, "images", source)
        if not isinstance(images, list) or not images:
            raise source.error(row.place, f"its field 'images' holds {images!r}, no list of images", "take the official file")
        files = [str(image["image_path"] if isinstance(image, dict) and "image_path" in image else image) for image in images]
        shown = tuple(source.inside(f"{options.images}/{file}", row.place, folder) for file in files)
        skill = checked(SKILLS, str(field(row, "question_type", source)).lower(), "question_type", row.place, source)
        category = str(field(row, "medical_task", source))
        yield ChoiceItem(name, name, "test", shown, row.place, question.partition(TAIL)[0], texts, str(label), skill, category)


def has_train(options: Options, source: Source) -> bool:
    """No question is for training."""
    return False


def _options(given: Any, row: Row, source: Source) -> tuple[str, ...]:
    """Texts by their letters, from A on."""
    pairs = given.items() if isinstance(given, Mapping) else [(one["letter"], one["content"]) for one in given]
    found = {str(letter): str(text) for letter, text in pairs}
    if list(found) != list(ascii_uppercase[: len(found)]):
        raise source.error(row.place, f"its options have the letters {', '.join(found)}", "take the official file")
    return tuple(found.values())
