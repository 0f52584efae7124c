"""Predict the test split of one cell: its scores (diagnosis) or answers (questions), stored once and scored again at will."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from medbench import partial, paths, provenance, runtime, sources, tables
from medbench.config import Config, Task
from medbench.errors import MedbenchError
from medbench.models import base

KEYS = ("dataset", "model", "mode")
# Kind of model, kind of recipe -> the module that predicts.
METHODS = {
    ("baseline", "zero-shot"): "medbench.predict.question_baseline",
    ("baseline", "probe"): "medbench.predict.probe",
    ("contrastive", "zero-shot"): "medbench.predict.zero_shot",
    ("contrastive", "probe"): "medbench.predict.probe",
    ("contrastive", "lora"): "medbench.predict.contrastive_lora",
    ("generative", "zero-shot"): "medbench.predict.generative",
    ("generative", "lora"): "medbench.predict.generative",
}
LOADS_MODEL = frozenset({"medbench.predict.contrastive_lora", "medbench.predict.generative", "medbench.predict.question_baseline"})


class Params(NamedTuple):
    """What the predictions follow from besides data, cached vectors and adapter. `source` is None where no model is loaded."""

    method: str
    task: Task
    source: dict[str, Any] | None  # fields of medbench.adapt.base.Source
    classes: tuple[str, ...]
    adapted: bool = False  # an adapter is put into the model
    asking: dict[str, Any] | None = None  # fields of medbench.models.asking.Asking, where questions are asked
    deterministic: bool = False  # kernels of a GPU
    image: str = "own"  # of a question: its own, blank, or shuffled
    seed: int | None = None  # of the shuffling


def params(config: Config, dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell."""
    entry, data, kind = config.models[model], config.datasets[dataset], config.modes[mode].kind
    if (entry.kind, kind) not in METHODS:
        raise MedbenchError(f"cell {dataset}/{model}/{mode}", f"mode {mode!r} ({kind}) fits no {entry.kind} model", "choose another mode")
    method = METHODS[entry.kind, kind]
    if getattr(config.modes[mode], "labels", None) is not None:
        method = "medbench.predict.few_shot"
    source = sources.source(config, model) if method in LOADS_MODEL else None
    chosen = Params(method, data.task, source, data.classes, kind == "lora", sources.asking(config, model))
    image = getattr(config.modes[mode], "image", "own")
    seed = config.run.seed if image == "shuffled" else None
    return chosen._replace(deterministic=config.run.deterministic and gpus(chosen) > 0, image=image, seed=seed)


def modules(params: Params) -> tuple[str, ...]:
    """The method, and where it loads the model, what `base.modules` names."""
    return (params.method, *base.modules(params.source)) if params.source else (params.method,)


def gpus(params: Params) -> int:
    """One where the method loads a model."""
    return 1 if params.source and params.source["checkpoint"] else 0


def run(params: Params, dataset: str, model: str, mode: str) -> dict[str, Any]:
    """Write `predictions/{dataset}/{model}/{mode}.parquet`. Returns facts for the run record.

    A method module offers `predict(params, dataset, model, mode, work)` -> the table; what takes long it keeps in `work`.
    """
    names = (dataset, model, mode)
    with partial.work(__name__, params, modules(params), names, _inputs(params, *names)) as work:
        if params.deterministic:
            runtime.deterministic_kernels()
        frame = importlib.import_module(params.method).predict(params, *names, work)
        tables.write(tables.TABLES[f"predictions-{params.task}"], frame, paths.predictions(*names))
        weights = work.found.get("weights") or provenance.recorded_weights(paths.embeddings(dataset, model))
        return {**work.facts(), "weights": weights, **_ended(frame)}


def _ended(frame: Any) -> dict[str, Any]:
    """How many answers ended in which way; nothing of scores."""
    if "finish_reason" not in frame.columns:
        return {}
    return {"finish_reasons": dict(frame["finish_reason"].value_counts().sort("finish_reason").iter_rows())}


def _inputs(params: Params, dataset: str, model: str, mode: str) -> list[Path]:
    """What a method that loads a model reads; others keep no unfinished work."""
    if params.source is None:
        return []
    files = [paths.samples(dataset, "test"), paths.images(dataset), *base.checkpoint_files(params.source["checkpoint"])]
    return [*files, *paths.adapter_files(dataset, model, mode)] if params.adapted else files
