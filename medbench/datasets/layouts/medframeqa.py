"""Layout `medframeqa`: MedFrameQA as the hub publishes it, Parquet files of questions about two to five frames of one video.

A group is a video. The chain of reasoning, which contains the answer, is never read. All questions are of reasoning, its authors say.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from string import ascii_uppercase

import pyarrow as pa

from medbench.datasets.layouts import ChoiceItem, Skill, Source, Strict
from medbench.datasets.reading import check_columns, parquet_rows, shown_images
from medbench.errors import MedbenchError

IMAGES = tuple(f"image_{number}" for number in range(1, 6))
TEXTS = ("question_id", "video_id", "question", "options", "correct_answer", "modality")


class Options(Strict):
    """`folder`: where the shards lie in `raw_dir`."""

    folder: str = "data"


def index_files(options: Options, source: Source) -> list[Path]:
    """The shards of test."""
    found = sorted(source.inside(options.folder, "option folder").glob("test-*.parquet"))
    if not found:
        raise source.error(options.folder, f"holds no file test-*.parquet in {source.folder}", "put MedFrameQA's files there")
    return found


def items(options: Options, source: Source) -> Iterator[ChoiceItem | MedbenchError]:
    """One item a question; all are for test. A category is a modality."""
    for file in index_files(options, source):
        name = file.relative_to(source.folder).as_posix()
        for row in parquet_rows(file, name, source, partial(_columns, name=name, source=source)):
            values = row.values
            images, texts = shown_images(row, [column for column in IMAGES if column in values], source), tuple(values["options"] or ())
            if not images:
                yield source.error(row.place, "has no image", "take the official file")
                continue
            answer = str(values["correct_answer"] or "").strip()
            letter = ascii_uppercase[texts.index(answer)] if answer in texts else answer
            yield ChoiceItem(
                str(values["question_id"]), str(values["video_id"]), "test", images, row.place, str(values["question"] or ""),
                texts, letter, Skill("reasoning", "mapped"), str(values["modality"] or ""),
            )  # fmt: skip


def has_train(options: Options, source: Source) -> bool:
    """No question is for training."""
    return False


def _columns(schema: pa.Schema, name: str, source: Source) -> list[str]:
    check_columns(schema.names, [*TEXTS, IMAGES[0]], name, source, "take the official file")
    return [*TEXTS, *(f"{column}.bytes" for column in IMAGES if column in schema.names)]
