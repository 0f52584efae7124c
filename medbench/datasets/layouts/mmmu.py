"""Layout `mmmu`: the health subjects of MMMU and MMMU-Pro as the hub publishes them, Parquet files with up to seven images a question.

Open questions are left out. The answers of MMMU's test split lie in a file of their own, which its authors published in February 2026.
Of MMMU-Pro the questions with up to ten options in words are read; they are questions of MMMU too, so the two sets are not independent.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import pyarrow as pa

from medbench.datasets.layouts import ChoiceItem, Excluded, Source, Strict, one_of
from medbench.datasets.reading import Row, check_columns, json_object, parquet_rows, shown_images
from medbench.errors import MedbenchError

SUBJECTS = ("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health")
IMAGES = tuple(f"image_{number}" for number in range(1, 8))
TEXTS = ("id", "question", "options", "answer")
PLACE = re.compile(r"<image (\d)>")
EDITIONS, PRO = ("validation", "test", "pro"), "standard (10 options)"


class Options(Strict):
    """`edition`: validation or test of MMMU, or pro (MMMU-Pro); `subjects`; `answers`: the file of test's answers in `raw_dir`."""

    edition: Annotated[str, one_of(EDITIONS)]
    subjects: tuple[str, ...] = SUBJECTS
    answers: str = "answer_dict_test.json"


def index_files(options: Options, source: Source) -> list[Path]:
    """The shards, and the answers of test."""
    if options.edition == "pro":
        found = sorted((source.folder / PRO).glob("test-*.parquet"))
        if not found:
            raise source.error(PRO, f"holds no file test-*.parquet in {source.folder}", "put MMMU-Pro's files there")
        return found
    files = []
    for subject in options.subjects:
        shards = sorted((source.folder / subject).glob(f"{options.edition}-*.parquet"))
        if not shards:
            raise source.error(subject, f"holds no file {options.edition}-*.parquet in {source.folder}", "put MMMU's files there")
        files += shards
    return [*files, *([source.inside(options.answers, "option answers")] if options.edition == "test" else [])]


def items(options: Options, source: Source) -> Iterator[ChoiceItem | Excluded | MedbenchError]:
    """One item a question with options; all are for test. A category is a subject."""
    files = index_files(options, source)
    golds = _golds(files.pop(), source) if options.edition == "test" else {}
    for file in files:
        name = file.relative_to(source.folder).as_posix()
        for row in parquet_rows(file, name, source, partial(_columns, name=name, source=source)):
            subject = str(row.values.get("subject") or file.parent.name)
            if subject not in options.subjects:
                continue
            if (row.values.get("question_type") or "multiple-choice") != "multiple-choice":
                yield Excluded("open question", row.place)
                continue
            try:
                yield _item(row, subject, golds, source)
            except MedbenchError as error:
                yield error


def has_train(options: Options, source: Source) -> bool:
    """No question is for training."""
    return False


def _item(row: Row, subject: str, golds: Mapping[str, str], source: Source) -> ChoiceItem:
    values = row.values
    try:
        texts = [str(text) for text in ast.literal_eval(values["options"])]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise source.error(row.place, f"its options are no list ({str(values['options'])[:80]!r})", "take the official file") from None
    question, name = str(values["question"] or ""), str(values["id"])
    answer = golds.get(name, "") if golds else str(values["answer"] or "")
    images = shown_images(row, [column for column in IMAGES if column in values], source)
    most = max((int(number) for text in (question, *texts) for number in PLACE.findall(text)), default=0)
    if most > len(images):
        raise source.error(row.place, f"names image {most} and has {len(images)}", "take the official file")
    question, *texts = (PLACE.sub(r"image \1", text).strip() for text in (question, *texts))
    return ChoiceItem(name, name, "test", images, row.place, question, tuple(texts), answer, category=subject)


def _golds(path: Path, source: Source) -> dict[str, str]:
    """Id -> letter of the questions with options."""
    found = {}
    for name, entry in json_object(path, source).items():
        if not isinstance(entry, dict) or "ground_truth" not in entry:
            raise source.error(path.name, f"question {name} has no ground_truth", "take the official file")
        gold = entry["ground_truth"]
        found[name] = str(gold[0] if isinstance(gold, list) and gold else gold)
    return found


def _columns(schema: pa.Schema, name: str, source: Source) -> list[str]:
    check_columns(schema.names, [*TEXTS, IMAGES[0]], name, source, "take the official file")
    more = [column for column in ("question_type", "subject") if column in schema.names]
    return [*TEXTS, *more, *(f"{column}.bytes" for column in IMAGES if column in schema.names)]
