"""A tiny LLaVA that has learned nothing, and the tables of a question-answering phantom: what tests of generative models run on."""

import hashlib
import io
from pathlib import Path

import polars as pl
import torch
from PIL import Image

from medbench import paths, tables
from medbench.adapt.asked import QuestionJob
from medbench.config import GenerativeLora
from medbench.datasets import stored
from medbench.datasets.images import decode
from medbench.demo import questions
from medbench.jobs.partial import Work
from medbench.models.asking import Asking
from medbench.models.checkpoint import Source
from medbench.tasks import vqa
from medbench.tasks.vqa import SamplesVqa
from tests.unit import checkpoints, tiny

torch.set_num_threads(1)
ASKING = Asking("{question}", "{question} Answer yes or no.", 6)
MODULE = "medbench.models.generative.llava"
RECIPE = GenerativeLora(r=4, alpha=8, dropout=0.1, learning_rate=3e-3, projector_learning_rate=3e-3, epochs=2, batch_size=8).model_dump(
    mode="json"
)


def checkpoint(folder: Path) -> Path:
    """An untrained LLaVA in the layout of the published one."""
    return checkpoints.build("llava-1.5", folder)


def dataset(name: str, kind: str = "radiology", patients: tuple[int, int, int] = (6, 2, 3), seed: int = 0) -> None:
    """Tables of a phantom below the working directory: consecutive patients form train, val and test."""
    samples = list(questions.cohort(kind, sum(patients), seed))
    owners = list(dict.fromkeys(sample.patient for sample in samples))
    ends = [sum(patients[: place + 1]) for place in range(3)]
    images: dict[str, bytes] = {}
    rows = []
    for number, sample in enumerate(samples):
        stream = io.BytesIO()
        Image.fromarray(sample.image).save(stream, "PNG")
        image_id = hashlib.sha256(stream.getvalue()).hexdigest()
        images.setdefault(image_id, stream.getvalue())
        split = next(place for place, end in enumerate(ends) if owners.index(sample.patient) < end)
        rows.append((split, f"{name}-{number:04d}", sample.patient, sample.question, sample.answer, sample.answer_type, image_id))
    for place, split in enumerate(paths.SPLITS):
        mine = [row[1:] for row in rows if row[0] == place]
        columns = dict(
            zip(("sample_id", "group_id", "question", "answer", "answer_type", "image_id"), map(list, zip(*mine, strict=True)), strict=True)
        )
        columns |= tiny.NOBODY
        columns["is_yes_no"] = [answer in ("yes", "no") for answer in columns["answer"]]
        tables.write(SamplesVqa, pl.DataFrame(columns, schema=tables.columns(SamplesVqa)), paths.samples(name, split))
    table = {
        "image_id": list(images),
        "pixel_digest": list(images),
        "perceptual_hash": list(range(len(images))),
        "image": list(images.values()),
        "evaluated": [True] * len(images),
    }
    tables.write(tables.Images, pl.DataFrame(table, schema=tables.columns(tables.Images)), paths.images(name))


def job(name: str, folder: Path, scratch: Path, recipe: dict[str, object] | None = None) -> QuestionJob:
    """The adaptation of a checkpoint to a data set of the working directory."""
    scratch.mkdir(parents=True, exist_ok=True)
    return QuestionJob(
        cell=f"{name}/tiny/lora",
        train=vqa.asked(name, "train"),
        val=vqa.asked(name, "val"),
        test_ids=stored.sample_ids(name, "test"),
        recipe={**RECIPE, **(recipe or {})},
        seed=0,
        asking=ASKING,
        images=lambda image_ids, batch_size: stored.images(name, image_ids, batch_size),
        decode=decode,
        source=Source(MODULE, str(folder), None, 16),
        work=Work(scratch),
    )
