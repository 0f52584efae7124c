"""Zero-shot classification from cached embeddings: cosine of image and class prompts, on the model's own logit scale."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import material, paths, tables
from medbench.adapt.base import log_softmax
from medbench.errors import MedbenchError
from medbench.partial import Work
from medbench.stages.predict import Params

MAIN = "main"  # the prompt set that decides; others feed the prompt spread
F64 = NDArray[np.float64]


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


def class_embeddings(prompts: F64, labels: NDArray[np.integer]) -> F64:
    """Prompt embeddings [p, e] of classes [p] -> [c, e], unit length: the renormalised mean of the normalised prompts of each class."""
    unit = normalised(prompts)
    return normalised(np.stack([unit[labels == label].mean(axis=0) for label in np.unique(labels)]))


def scores(images: NDArray[np.floating], texts: F64, scale: float, bias: float) -> F64:
    """Image embeddings [n, q, e], class embeddings [c, e] -> softmax [n, c] of scale * (best cosine over q) + bias."""
    cosine = (normalised(images.astype(np.float64)) @ texts.T).max(axis=1)
    return np.asarray(np.exp(log_softmax(scale * cosine + bias)))


def normalised(vectors: F64) -> F64:
    """Unit length over the last axis; a zero vector stays zero, so its cosine with everything is zero."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norm > 0, norm, 1.0))
