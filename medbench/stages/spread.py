"""How far zero-shot AUROC moves over the prompt sets of a data set: wording decides much, and only set `main` counts elsewhere."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from medbench import material, paths, tables

if TYPE_CHECKING:
    from medbench.config import Config

KEYS = ("dataset", "model")


class Params(NamedTuple):
    """Classes in the order of their labels."""

    classes: tuple[str, ...]


def params(config: "Config", dataset: str, model: str) -> Params:
    """Parameters of one model on one data set."""
    return Params(config.datasets[dataset].classes)


def run(params: Params, dataset: str, model: str) -> None:
    """Write `spread/{dataset}/{model}.parquet` from cached embeddings: no model is asked."""
    from medbench.metrics.diagnosis import auroc
    from medbench.models.similarity import class_embeddings, scores

    test = material.samples(dataset, "test", len(params.classes))
    images = material.embeddings(dataset, model, test.image_ids)
    prompts = tables.read(tables.Prompts, paths.prompts(dataset, model)).sort("prompt_set", "label", "position")
    rows: list[dict[str, Any]] = []
    for (name,), of_set in prompts.group_by("prompt_set", maintain_order=True):
        texts = class_embeddings(np.array(of_set["embedding"].to_list(), dtype=np.float64), of_set["label"].to_numpy())
        made = scores(images, texts, float(of_set["scale"][0]), float(of_set["bias"][0]))
        value = float(auroc(test.labels, made, np.ones((len(test.labels), 1)))[0])
        rows.append({"prompt_set": name, "prompts": of_set.height, "auroc": value if np.isfinite(value) else None, "n": len(test.labels)})
    tables.write(tables.Spread, pl.DataFrame(rows, schema=tables.columns(tables.Spread)), paths.spread(dataset, model))
