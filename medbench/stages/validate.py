"""Predict the validation split of one cell: by it the confirmatory analysis chooses one model of a side, which is tested once on test.

Made for cells only whose side has several models in a run, and whose certificate does not say it: elsewhere there is nothing to choose.

Example: python -m medbench validate nano-radiology nano-clip ots --configfile config/nano.yaml
"""

from typing import Any

from medbench import paths, tables, tasks
from medbench.config import Config, recipe_kind, sources
from medbench.errors import MedbenchError
from medbench.jobs import integrity, partial
from medbench.jobs.stage import Stage
from medbench.predict.job import Params
from medbench.remote.endpoint import is_past
from medbench.stages import predict
from medbench.tasks import Method


def method(config: Config, dataset: str, model: str, mode: str) -> Method | None:
    """What predicts a cell's validation split; None where its certificate says what it reaches there, or nothing does."""
    kind = config.models[model].kind, recipe_kind(config.modes[mode])
    return tasks.get(config.datasets[dataset].task).validated_by.get(kind)


def is_certified(config: Config, dataset: str, model: str, mode: str) -> bool:
    """Whether the certificate says what a cell reaches on validation data."""
    kind = config.models[model].kind, recipe_kind(config.modes[mode])
    return kind in tasks.get(config.datasets[dataset].task).certified


def is_gone(config: Config, dataset: str, model: str, mode: str) -> bool:
    """Whether the model was shut down before it was asked."""
    retired = config.models[model].retired_on
    return retired is not None and is_past(str(retired)) and not paths.validation(dataset, model, mode).exists()


def params(config: Config, dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell: those of its prediction, by another method. Raises MedbenchError for a recipe without one."""
    chosen = method(config, dataset, model, mode)
    if chosen is None:
        found = f"recipe {recipe_kind(config.modes[mode])!r} predicts no validation split"
        raise MedbenchError(f"cell {dataset}/{model}/{mode}", found, "choose another mode")
    source = sources.source(config, model) if "model" in chosen.reads else None
    made = predict.params(config, dataset, model, mode)
    return made._replace(method=chosen.module, reads=chosen.reads, source=source, deterministic=made.deterministic and source is not None)


def run(params: Params, dataset: str, model: str, mode: str, work: partial.Work) -> dict[str, Any]:
    """Write `validation/{dataset}/{model}/{mode}.parquet`. Returns facts for the run record."""
    cell = (dataset, model, mode)
    if params.adapted:
        integrity.require_adapter("/".join(cell), *paths.adapter_files(*cell))
    frame, facts = predict.answered(params, *cell, work)
    tables.write(tasks.get(params.task).predictions, frame, paths.validation(*cell))
    return facts


STAGE = Stage(
    name="validate",
    keys=("dataset", "model", "mode"),
    params=params,
    inputs=lambda params, dataset, model, mode: predict.inputs(params, dataset, model, mode, "val"),
    outputs=lambda *cell: [paths.validation(*cell)],
    run=run,
    uses=predict.uses,
    needs=lambda config, *cell: predict.needs_of("validate", params(config, *cell).reads, config, *cell),
    resumes=True,
    beside=predict.beside,
)
