"""Predict the test split of one cell: its scores (diagnosis) or answers (questions), stored once and scored again at will."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from medbench import paths, tables, tasks
from medbench.config import Config, Model, ZeroShot, needs, recipe_kind, sources
from medbench.errors import MedbenchError
from medbench.jobs import digests, integrity, partial, records, seeding
from medbench.jobs.stage import Needs, Stage
from medbench.models import answering, loading
from medbench.predict import earlier
from medbench.predict.job import Params
from medbench.tasks import Method


def params(config: Config, dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell. Raises MedbenchError for a mode that does not fit the model and the task."""
    entry, data, chosen = config.models[model], config.datasets[dataset], config.modes[mode]
    method = _method(config, dataset, model, mode)
    source = sources.source(config, model) if "model" in method.reads else None
    image, chooses = getattr(chosen, "image", "own"), tasks.get(data.task).rows == "choices"
    return Params(
        method.module,
        data.task,
        source,
        data.classes,
        method.reads,
        adapted=chosen.kind != "zero-shot",
        asking=sources.choosing(config, model, chosen) if chooses and isinstance(chosen, ZeroShot) else sources.asking(config, model),
        deterministic=config.run.deterministic and _computes(entry, source is not None),
        image=image,
        seed=config.run.seed if image == "shuffled" or chooses else None,
    )


def _method(config: Config, dataset: str, model: str, mode: str) -> Method:
    """What predicts a cell. Raises MedbenchError where nothing does."""
    entry, data, chosen = config.models[model], config.datasets[dataset], config.modes[mode]
    methods, kind = tasks.get(data.task).predicted_by, recipe_kind(chosen)
    if (found := methods.get((entry.kind, kind)) or methods.get((entry.kind, chosen.kind))) is None:
        fault = f"mode {mode!r} ({kind}) fits no {entry.kind} model on {data.task}"
        raise MedbenchError(f"cell {dataset}/{model}/{mode}", fault, "choose another mode")
    return found


def _computes(entry: Model, loads: bool) -> bool:
    """Whether a job puts weights onto a device of its own."""
    return loads and entry.kind not in ("baseline", "remote")


def inputs(params: Params, dataset: str, model: str, mode: str, split: str = "test") -> list[Path]:
    """What a cell's answers follow from: samples, an adapter, and what its method reads."""
    read = {
        "embeddings": [paths.embeddings(dataset, model)],
        "prompts": [paths.prompts(dataset, model)],
        "images": [paths.images(dataset)],
        "train": [paths.samples(dataset, "train")],
        "model": sources.made_here(params.source, model) if params.source else [],
    }
    adapter = paths.adapter_files(dataset, model, mode) if params.adapted else []
    return [paths.samples(dataset, split), *adapter, *(file for name in params.reads for file in read[name])]


def uses(params: Params) -> tuple[str, ...]:
    """The method, the tables of the task, and where a model is loaded its architecture."""
    task = tasks.get(params.task).code("samples", "predictions", "asked", "answered")
    asks = (answering.module(params.source),) if params.source and params.asking else ()
    return (params.method, *task, *asks, *(loading.modules(params.source) if params.source else ()))


def run(params: Params, dataset: str, model: str, mode: str, work: partial.Work) -> dict[str, Any]:
    """Write `predictions/{dataset}/{model}/{mode}.parquet`. Returns facts for the run record.

    Answers that differ from those kept earlier in nothing but labels of the test split are taken over.
    """
    cell = (dataset, model, mode)
    adapter = {"adapter": integrity.require_adapter("/".join(cell), *paths.adapter_files(*cell))} if params.adapted else {}
    task, key = tasks.get(params.task), _key(params, cell, work)
    test = tables.read(task.samples, paths.samples(dataset, "test"))
    made = None if work.beside.get("retry") else earlier.find(cell, key, test, task.repeated)
    if made is None:
        made = earlier.Earlier(*answered(params, *cell, work))
        earlier.keep(cell, key, test, made)
    tables.write(task.predictions, made.table, paths.predictions(*cell))
    return {**made.facts, **adapter, **_ended(made.table)}


def answered(params: Params, dataset: str, model: str, mode: str, work: partial.Work) -> tuple[pl.DataFrame, dict[str, Any]]:
    """A table of predictions, and facts of how it was made.

    A method module offers `predict(params, dataset, model, mode, work)` -> the table; what takes long it keeps in `work`.
    """
    if params.deterministic:
        seeding.deterministic_kernels()
    frame = importlib.import_module(params.method).predict(params, dataset, model, mode, work)
    weights = work.found.get("weights") or records.recorded_weights(paths.embeddings(dataset, model))
    return frame, {**work.facts(), "weights": weights}


def _key(params: Params, cell: tuple[str, str, str], work: partial.Work) -> str:
    """Of all that the answers of a cell follow from, but for what the test split says."""
    others = inputs(params, *cell)[1:]
    return digests.digest(digests.canonical([work.fingerprint, integrity.of_inputs(others), records.versions()]))


def _ended(frame: Any) -> dict[str, Any]:
    """How many answers ended in which way; nothing of scores."""
    if "finish_reason" not in frame.columns:
        return {}
    return {"finish_reasons": dict(frame["finish_reason"].value_counts().sort("finish_reason").iter_rows())}


def needs_of(stage: str, reads: Sequence[str], config: Config, dataset: str, model: str, mode: str) -> Needs:
    """What a job asks of a scheduler that reads a model, or none (`Method.reads`)."""
    entry = config.models[model]
    asked = needs.model_job(config, stage, {"dataset": dataset, "model": model, "mode": mode}, _computes(entry, "model" in reads))
    return asked._replace(network=entry.kind == "remote")


def beside(config: Config, dataset: str, model: str, mode: str) -> dict[str, Any]:
    """How a remote model is reached."""
    told = sources.reached(config, model, dataset)
    return {**told, "gone": str(paths.gone(dataset, model, mode))} if told else {}


STAGE = Stage(
    name="predict",
    keys=("dataset", "model", "mode"),
    params=params,
    inputs=inputs,
    outputs=lambda *cell: [paths.predictions(*cell)],
    run=run,
    uses=uses,
    needs=lambda config, *cell: needs_of("predict", _method(config, *cell).reads, config, *cell),
    resumes=True,
    beside=beside,
)
