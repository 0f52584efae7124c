"""Embed the class prompts of a data set: every prompt set, so that editing a prompt re-embeds no image."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from medbench import paths, tables
from medbench.config import Config, needs, sources
from medbench.errors import MedbenchError
from medbench.jobs.stage import Stage
from medbench.models import loading
from medbench.models.checkpoint import Source


class Params(NamedTuple):
    """What the text embeddings follow from."""

    source: dict[str, Any]  # fields of medbench.models.checkpoint.Source
    classes: tuple[str, ...]
    prompts: dict[str, dict[str, tuple[str, ...]]]  # set -> class -> prompts


def params(config: Config, dataset: str, model: str) -> Params:
    """Parameters of one model on one data set."""
    data = config.datasets[dataset]
    return Params(sources.weights(config, model), data.classes, data.prompts)


def run(params: Params, dataset: str, model: str) -> dict[str, Any]:
    """Write `prompts/{dataset}/{model}.parquet`. Returns facts for the run record.

    Raises MedbenchError for a prompt longer than the model reads.
    """
    rows: list[dict[str, Any]] = [
        {"prompt_set": name, "label": label, "position": position, "prompt": prompt}
        for name, prompts in sorted(params.prompts.items())
        for label, of_class in enumerate(params.classes)
        for position, prompt in enumerate(prompts[of_class])
    ]
    encoder: loading.Contrastive = loading.load(Source(**params.source))
    encoded = encoder.encode_texts([row["prompt"] for row in rows]).cpu().numpy()
    if not np.isfinite(encoded).all():
        row = rows[int(np.isfinite(encoded).all(axis=1).argmin())]
        raise MedbenchError(f"prompts {dataset}/{model}, prompt {row['prompt']!r}", "its embedding is not finite", "check the checkpoint")
    frame = pl.DataFrame(
        [
            {**row, "embedding": vector.tolist(), "scale": encoder.scale, "bias": encoder.bias}
            for row, vector in zip(rows, encoded, strict=True)
        ],
        schema=tables.columns(tables.Prompts),
    )
    tables.write(tables.Prompts, frame, paths.prompts(dataset, model))
    return {"weights": encoder.weights}


STAGE = Stage(
    name="prompts",
    keys=("dataset", "model"),
    params=params,
    inputs=lambda params, dataset, model: sources.made_here(params.source, model),
    outputs=lambda dataset, model: [paths.prompts(dataset, model)],
    run=run,
    uses=lambda params: (params.source["module"],),
    needs=lambda config, dataset, model: needs.model_job(config, "prompts", {"dataset": dataset, "model": model}, True, on_gpu=False),
)
