"""Zero-shot classification from cached embeddings: cosine of image and class prompts, on the model's own logit scale."""

import numpy as np
import polars as pl

from medbench import material, paths, tables
from medbench.errors import MedbenchError
from medbench.models.similarity import class_embeddings, scores
from medbench.partial import Work
from medbench.stages.predict import Params

MAIN = "main"  # the prompt set that decides; others feed the prompt spread


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-diagnosis` of the test split, by prompt set `main`."""
    test = material.samples(dataset, "test", len(params.classes))
    images = material.embeddings(dataset, model, test.image_ids)
    path = paths.prompts(dataset, model)
    table = tables.read(tables.Prompts, path).filter(pl.col("prompt_set") == MAIN).sort("label", "position")
    if table["label"].unique().sort().to_list() != list(range(len(params.classes))):
        raise MedbenchError(path, f"prompt set {MAIN!r} lacks a class", "delete it and run `prompts` again")
    texts = class_embeddings(np.array(table["embedding"].to_list(), dtype=np.float64), table["label"].to_numpy())
    return material.predictions(test, scores(images, texts, float(table["scale"][0]), float(table["bias"][0])))
