"""Zero-shot classification from cached embeddings: cosine of image and class prompts, on the model's own logit scale."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.adapt.job import Samples
from medbench.datasets import stored
from medbench.errors import MedbenchError
from medbench.jobs.partial import Work
from medbench.models.similarity import class_embeddings, scores
from medbench.predict.job import Params
from medbench.tasks.diagnosis import predictions, samples

MAIN = "main"  # the prompt set that decides; others show how much wording matters


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-diagnosis` of the test split, by prompt set `main`, with the scores of every set."""
    test = samples(dataset, "test", len(params.classes))
    by_set = by_prompt_set(dataset, model, test, len(params.classes))
    return predictions(test, by_set[MAIN], by_prompts=np.stack([by_set[name] for name in sorted(by_set)], axis=1))


def by_prompt_set(dataset: str, model: str, chosen: Samples, n_classes: int) -> dict[str, NDArray[np.float64]]:
    """Prompt set -> scores [n, k] of samples of val or test. Raises MedbenchError where a set lacks a class, or `main` is absent."""
    images = stored.embeddings(dataset, model, chosen.image_ids)
    path = paths.prompts(dataset, model)
    by_set: dict[str, NDArray[np.float64]] = {}
    prompts = tables.read(tables.Prompts, path).sort("prompt_set", "label", "position")
    for (name,), table in prompts.group_by("prompt_set", maintain_order=True):
        if table["label"].unique().sort().to_list() != list(range(n_classes)):
            raise MedbenchError(path, f"prompt set {name!r} lacks a class", "delete it and run `prompts` again")
        texts = class_embeddings(np.array(table["embedding"].to_list(), dtype=np.float64), table["label"].to_numpy())
        by_set[str(name)] = scores(images, texts, float(table["scale"][0]), float(table["bias"][0]))
    if MAIN not in by_set:
        raise MedbenchError(path, f"holds no prompt set {MAIN!r}", "delete it and run `prompts` again")
    return by_set
