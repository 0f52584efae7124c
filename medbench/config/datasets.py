"""What `config/datasets.yaml` may say."""

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medbench import tasks
from medbench.config.strict import Inside, Mark, Slug, Strict
from medbench.jobs.addresses import VARIABLE

TRACKED = False  # what is decided here reaches a job by its parameters


class Counts(Strict):
    """Rows of each split as published, before a validation split is cut from train."""

    train: int = Field(ge=0)
    val: int = Field(0, ge=0)
    test: int = Field(ge=0)


class AboutDataset(Strict):
    """For people; changing it reruns the report only."""

    label: str | None = None
    licence: str | None = None
    access: Literal["open", "gated", "manual", "generated"] | None = None  # null: open where there is a source, else one's own
    citation: str | None = None
    published: Counts | None = None  # the study's own figures, which for questions count train and test together
    download: int | None = Field(None, ge=1)  # bytes of its official files, where they are known
    test_groups: int | None = Field(None, ge=1)  # patients, slides, ... of the test split, where they are too few for a verdict
    note: str | None = None


class Hub(Strict):
    """Files of a hub data set."""

    kind: Literal["hub"]
    repo: Mark
    revision: Mark | None = None  # a commit; null: the newest at the first fetch, which its record names
    patterns: tuple[str, ...] = Field(("*",), min_length=1)
    unpack: dict[str, Inside] = {}  # archive -> folder


class RemoteFile(Strict):
    """One file by its address."""

    url: Mark  # `${VARIABLE}` is expanded for the request alone: a key or password is written so
    name: Inside
    checksum: str | None = Field(None, pattern="(md5|sha256):[0-9a-f]+")
    enforce: bool = True  # false: a checksum from a secondary source, whose difference is only said
    bytes: int | None = Field(None, ge=1)
    unpack: Inside | None = None  # folder


class Addresses(Strict):
    """Files by their addresses."""

    kind: Literal["files"]
    files: tuple[RemoteFile, ...] = Field(min_length=1)


class Manual(Strict):
    """Files that a person must apply for."""

    kind: Literal["manual"]
    apply: str  # where
    place: str  # what to put into the data set's folder


FileSource = Annotated[Hub | Addresses | Manual, Field(discriminator="kind")]


class Sizes(Strict):
    """Samples to draw of each split, whole groups at a time; null: all."""

    train: int | None = Field(None, ge=1)
    val: int | None = Field(None, ge=1)
    test: int | None = Field(None, ge=1)


class Dataset(Strict):
    """One entry of `config/datasets.yaml`."""

    task: Slug  # medbench/tasks/{task}.py
    layout: Slug  # medbench/datasets/layouts/{layout}.py; an entry may stand here before its file does
    modality: Slug
    specialty: Slug
    raw_dir: Mark | None = None  # folder of the official files; `${VARIABLE}` is expanded
    source: FileSource | None = None  # where they come from when there is no raw_dir, or its variable is not set
    options: dict[str, Any] = {}  # the layout's own, checked by its file
    sample: Sizes | None = None  # a seeded draw of the groups
    max_side: int | None = Field(None, ge=32)  # pixels: larger images are shrunk once, when they are read
    background: Literal["white", "black"] = "white"  # behind what is transparent in an image
    bits: int | None = Field(None, ge=8, le=32)  # of its PNG and TIFF beyond 8; else as many as the largest value of all images needs
    classes: tuple[str, ...] = ()  # diagnosis: index = label
    prompts: dict[Slug, dict[str, tuple[str, ...]]] = {}  # set -> class -> prompts; `main` decides
    validation: float = Field(0.2, gt=0, lt=1)  # share of train's groups cut off where there is no official validation split
    max_drops: float = Field(0.0, ge=0, le=1)  # share of rows that may be dropped (missing or broken image) and counted
    allow_group_overlap: bool = False  # published that way (VQA-RAD): reported instead of refused
    send_to: tuple[str, ...] = ()  # hosts of services that its images and texts may be sent to, or "*": nobody, unless this says so
    test_only: bool = False  # no row is for training: adapted modes and baselines are left out. Own files are looked at for that
    expected: Counts | None = None  # another number of rows is an error,
    allow_counts: bool = False  # unless this says that it is known
    about: AboutDataset = AboutDataset()

    @model_validator(mode="after")
    def _check(self) -> "Dataset":
        if self.task not in tasks.names():
            raise ValueError(f"`task` must be one of {', '.join(tasks.names())}, found {self.task!r}")
        if tasks.get(self.task).rows != "labels" and (self.classes or self.prompts):
            raise ValueError(f"`classes` and `prompts` are for images with labels, and the task is {self.task}: remove them")
        tasks.get(self.task).check_entry(self)
        return self


@cache
def layouts() -> tuple[str, ...]:
    """Layouts that have a file."""
    return tuple(sorted(file.stem.replace("_", "-") for file in (Path(__file__).parents[1] / "datasets" / "layouts").glob("[a-z]*.py")))


def is_fetched(entry: Dataset) -> bool:
    """Whether the stage `fetch` brings a data set's files: it says where from, and no `raw_dir` that can be used stands above that."""
    unset = entry.raw_dir is None or not all(os.environ.get(name) for name in VARIABLE.findall(entry.raw_dir))
    return entry.source is not None and unset
