"""Layout `fairvlmed-vqa`: questions made from FairVLMed's notes, `vqa_{train,validation,test}.csv` of the user's own beside the images.

Columns `filename, image_path, question type, question, answer`; `image_path` is like `./Training/data_00001.npz`. Rows with blanks are
left out, as published. A group is a subject.
"""

from collections.abc import Iterator
from pathlib import Path

from medbench.datasets.layouts import Embedded, Excluded, Source, Strict, VqaItem
from medbench.datasets.layouts.fairvlmed import fundus
from medbench.datasets.reading import checked, csv_rows, root

FILES = {"vqa_train.csv": "train", "vqa_validation.csv": "val", "vqa_test.csv": "test"}
COLUMNS = ("filename", "image_path", "question type", "question", "answer")
TYPES = {"open": "open", "closed": "closed"}


class Options(Strict):
    """`images`: folder that image paths are relative to, in `raw_dir`."""

    images: str = "."


def index_files(options: Options, source: Source) -> list[Path]:
    """The tables; validation may be absent."""
    folder = root(source, "vqa_train.csv")
    if not (folder / "vqa_test.csv").is_file():
        raise source.error("vqa_test.csv", f"does not exist in {folder}", "put it beside vqa_train.csv")
    return [folder / name for name in FILES if (folder / name).is_file()]


def items(options: Options, source: Source) -> Iterator[VqaItem | Excluded]:
    """One item a question."""
    last, image = Path(), None  # the questions about one subject follow each other
    for index in index_files(options, source):
        split = FILES[index.name]
        for number, (place, row) in enumerate(csv_rows(index, COLUMNS, source)):
            if not all(row[column].strip() for column in COLUMNS):
                yield Excluded("blank value", place)
                continue
            path = source.inside(f"{options.images}/{row['image_path'].removeprefix('./')}", place)
            if path != last or image is None:
                last, image = path, _image(path, place, source)
            kind = checked(TYPES, row["question type"], "question type", place, source)
            name = Path(row["filename"]).stem
            yield VqaItem(f"{split}-{number:05d}", name, split, image, place, row["question"], row["answer"], kind)


def _image(path: Path, place: str, source: Source) -> Path | Embedded:
    return fundus(path, place, source) if path.suffix == ".npz" else path
