"""How many samples a data set has, before and after it is prepared."""

import contextlib
import json
import time
from typing import Any, NamedTuple

import polars as pl

from medbench import paths, tables, tasks
from medbench.config import Config, is_fetched, raw_dir
from medbench.config.needs import UNKNOWN_ROWS, weights_mb
from medbench.datasets import layouts
from medbench.datasets.layouts import DiagnosisItem, VqaItem
from medbench.errors import MedbenchError
from medbench.jobs import tree

TRACKED = False  # a look ahead is no part of a result
MOST_SECONDS = 5.0
"""Of counting the rows of one data set of one's own."""
IN_TABLES = ("table", "imagefolder")  # layouts whose rows are read without their images
_PHANTOM_IMAGES = {"phantom": 2.5, "phantom-vqa": 2.0}  # of a drawn patient
_PHANTOM_QUESTIONS = 4  # about an image


class Size(NamedTuple):
    """`train` holds validation, too. `groups`: effective ones behind the measure that decides, `most` of them where not counted."""

    train: int
    test: int
    images: int
    groups: float | None
    is_exact: bool
    """Whether `groups` is counted; else it is the most that there can be."""
    origin: str
    """prepared | counted in its files | drawn | published | assumed."""


def of(config: Config, dataset: str) -> Size:
    """By the prepared tables, else by what the registry, or a table of one's own, says."""
    entry = config.datasets[dataset]
    task = tasks.get(entry.task)
    if prepared := _prepared(config, dataset):
        return prepared
    if entry.layout in _PHANTOM_IMAGES:
        patients = entry.options["n_patients"]
        each = _PHANTOM_IMAGES[entry.layout]
        rows = each * (_PHANTOM_QUESTIONS if task.rows == "questions" else 1)
        train, test = patients["train"] + patients["val"], patients["test"]
        groups = test / max(len(entry.classes), 1)
        return Size(round(rows * train), round(rows * test), round(each * (train + test)), groups, False, "drawn")
    if counted := _counted(config, dataset):
        return counted
    counts = entry.expected or entry.about.published
    if counts is not None:
        train, test, origin = counts.train + counts.val, counts.test, "published"
    else:
        train, test, origin = UNKNOWN_ROWS, UNKNOWN_ROWS // 4, "assumed"
    if entry.sample is not None:
        train = min(train, (entry.sample.train or train) + (entry.sample.val or 0))
        test = min(test, entry.sample.test or test)
    most = entry.about.test_groups or test
    return Size(train, test, train + test, most / max(len(entry.classes), 1) if origin != "assumed" else None, False, origin)


def _prepared(config: Config, dataset: str) -> Size | None:
    entry = config.datasets[dataset]
    task = tasks.get(entry.task)
    try:
        splits = json.loads(paths.card(dataset).read_bytes())["splits"]
        test = tables.read(task.samples, paths.samples(dataset, "test"), ["group_id", task.stratum])
        counts = {name: int(one["samples"]) for name, one in splits.items()}
        images = sum(int(one["images"]) for one in splits.values())
    except (OSError, ValueError, KeyError, TypeError, MedbenchError):  # not prepared, or damaged: who reads it says so
        return None
    train = counts.get("train", 0) + counts.get("val", 0)
    return Size(train, counts.get("test", 0), images, task.effective_groups(test, entry.classes), True, "prepared")


def _counted(config: Config, dataset: str) -> Size | None:
    """Rows of a table of one's own, or of folders of classes, without opening an image."""
    entry = config.datasets[dataset]
    if entry.layout not in IN_TABLES or is_fetched(entry):
        return None
    task, end = tasks.get(entry.task), time.monotonic() + MOST_SECONDS
    train, images, test = 0, set(), list[tuple[str, Any]]()
    with contextlib.suppress(MedbenchError, OSError):
        source = layouts.Source(dataset, entry.task, raw_dir(config, dataset), entry.classes, config.run.seed)
        layout = layouts.load_layout(entry.layout)
        for item in layout.items(layouts.read_options(entry.layout, entry.options, dataset), source):
            if time.monotonic() > end:
                return None
            if not isinstance(item, DiagnosisItem | VqaItem):
                continue
            images.add(str(item.image))
            if item.split != "test":
                train += 1
            elif isinstance(item, VqaItem):
                test.append((item.group_id, item.answer_type))
            elif item.label in entry.classes:
                test.append((item.group_id, entry.classes.index(item.label)))
        frame = pl.DataFrame(test, schema=["group_id", task.stratum], orient="row")
        if test:
            return Size(train, len(test), len(images), task.effective_groups(frame, entry.classes), True, "counted in its files")
    return None


def written(config: Config, stage: str, names: tuple[str, ...], size: Size | None) -> int:
    """Bytes that a job leaves in `results`, roughly. `size`: of its data set."""
    kept = {"report": 8_000_000, "gaps": 200_000, "pretrain": 700_000, "interval": 100_000}
    if size is None or stage in kept or stage == "fetch":
        return kept.get(stage, 10_000)
    entry = config.datasets[names[0]]
    if stage == "prepare":
        folder = raw_dir(config, names[0]) if entry.raw_dir and not is_fetched(entry) else None
        stored = sum(file.stat().st_size for file in tree.files_below(folder) if file.is_file()) if folder else entry.about.download
        return stored or size.images * (8_000 if entry.layout in _PHANTOM_IMAGES else 100_000)
    small = stage != "duplicates" and config.models[names[1]].pretrain is not None
    if stage == "embed":
        return size.images * (700 if small else 5_000)
    if stage == "adapt":
        return 70_000 if small else int(0.02e6 * weights_mb(config, names[1])) + 70_000
    return 50 * (size.train + size.test)
