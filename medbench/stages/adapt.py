"""Adapt a model to a data set: train what the mode's recipe says on train and val, certify it, save it."""

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from medbench import partial, paths, provenance, runtime, sources
from medbench.config import Config, Probe, recipe
from medbench.errors import MedbenchError
from medbench.models import base

KEYS = ("dataset", "model", "mode")
# Kind of model, kind of recipe -> the module that adapts.
METHODS = {
    ("baseline", "probe"): "medbench.adapt.probe",
    ("contrastive", "probe"): "medbench.adapt.probe",
    ("contrastive", "lora"): "medbench.adapt.contrastive_lora",
    ("generative", "lora"): "medbench.adapt.generative_lora",
}
PROBES = {
    "regularised": "medbench.adapt.probe",
    "published": "medbench.adapt.published_probe",
    "few-shot": "medbench.adapt.few_shot",
}
LOADS_MODEL = frozenset({"medbench.adapt.contrastive_lora", "medbench.adapt.generative_lora"})


class Params(NamedTuple):
    """What the weights follow from besides the data and, for a probe, its cached features. `source` is None for a probe."""

    method: str
    source: dict[str, Any] | None  # fields of medbench.adapt.base.Source
    recipe: dict[str, Any]
    classes: tuple[str, ...]
    seed: int
    asking: dict[str, Any] | None = None  # fields of medbench.models.asking.Asking, where questions are asked
    deterministic: bool = False  # kernels of a GPU
    clean: bool = False  # without the samples whose image stands in test too
    prompts: tuple[tuple[str, ...], ...] | None = None  # deciding prompts of each class, where they are the head


def params(config: Config, dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell. Raises MedbenchError when its mode adapts nothing."""
    entry, kind = config.models[model], config.modes[mode].kind
    if (entry.kind, kind) not in METHODS:
        raise MedbenchError(f"cell {dataset}/{model}/{mode}", f"mode {mode!r} ({kind}) adapts no {entry.kind} model", "choose another mode")
    method = METHODS[entry.kind, kind]
    if isinstance(recipe_of := config.modes[mode], Probe):
        method = PROBES[recipe_of.solver if recipe_of.labels is None else "few-shot"]
    chosen = recipe(config, model, mode).model_dump(mode="json")
    asking = sources.asking(config, model)
    used = sources.source(config, model) if method in LOADS_MODEL else None
    deterministic = config.run.deterministic and used is not None
    clean = bool(getattr(config.modes[mode], "clean", False))
    data = config.datasets[dataset]
    prompts = tuple(data.prompts["main"][name] for name in data.classes) if chosen.get("target") == "text" else None
    return Params(method, used, chosen, data.classes, config.run.seed, asking, deterministic, clean, prompts)


def modules(params: Params) -> tuple[str, ...]:
    """The method, and where it loads the model, what `base.modules` names."""
    return (params.method, *base.modules(params.source)) if params.source else (params.method,)


def gpus(params: Params) -> int:
    """One where the method loads a model."""
    return 1 if params.source else 0


def run(params: Params, dataset: str, model: str, mode: str) -> dict[str, Any]:
    """Write weights and certificate of one cell. A cell whose certificate fails is a MedbenchError, and nothing is written."""
    names = (dataset, model, mode)
    with partial.work(__name__, params, modules(params), names, _inputs(params, dataset, model)) as work:
        from medbench import material
        from medbench.adapt import certificate

        left_out = material.twins_of_test(dataset) if params.clean else frozenset[str]()

        if params.deterministic:
            runtime.deterministic_kernels()
        job = (_question_job if params.asking else _diagnosis_job)(params, *names, work, left_out)
        adapted = importlib.import_module(params.method).adapt(job)
        certificate.require(adapted.certificate)
        weights = adapted.base or provenance.recorded_weights(paths.embeddings(dataset, model))
        certificate.write(adapted.certificate, work.folder / "certificate.json", weights)
        _publish(work.folder, paths.adapter_files(*names))
        trained = sum(tensor.size for tensor in adapted.certificate.evidence.tensors)
        facts = {**work.facts(), "parameters_trained": trained, "weights": weights}
        return {**facts, **({"left_out": len(left_out)} if params.clean else {})}


def _inputs(params: Params, dataset: str, model: str) -> list[Path]:
    files = [paths.samples(dataset, split) for split in ("train", "val")] + ([paths.twins(dataset)] if params.clean else [])
    if params.source is None:
        return [*files, paths.embeddings(dataset, model)]
    return [*files, paths.images(dataset), *base.checkpoint_files(params.source["checkpoint"])]


def _question_job(params: Params, dataset: str, model: str, mode: str, work: partial.Work, left_out: frozenset[str]) -> Any:
    from medbench import material
    from medbench.adapt.asked import QuestionJob
    from medbench.datasets.images import decode
    from medbench.models.asking import asking
    from medbench.models.checkpoint import Source

    assert params.source is not None and params.asking is not None, "questions are asked of a model"
    return QuestionJob(
        cell=f"{dataset}/{model}/{mode}",
        train=material.asked(dataset, "train", left_out),
        val=material.asked(dataset, "val", left_out),
        test_ids=material.sample_ids(dataset, "test"),
        recipe=params.recipe,
        seed=params.seed,
        asking=asking(params.asking),
        images=lambda image_ids, batch_size: material.images(dataset, image_ids, batch_size),
        decode=decode,
        source=Source(**params.source),
        work=work,
    )


def _diagnosis_job(params: Params, dataset: str, model: str, mode: str, work: partial.Work, left_out: frozenset[str]) -> Any:
    from medbench import material
    from medbench.adapt.base import Job
    from medbench.datasets.images import decode
    from medbench.models.checkpoint import Source

    return Job(
        cell=f"{dataset}/{model}/{mode}",
        classes=params.classes,
        train=material.samples(dataset, "train", len(params.classes), left_out),
        val=material.samples(dataset, "val", len(params.classes), left_out),
        test_ids=material.sample_ids(dataset, "test"),
        recipe=params.recipe,
        seed=params.seed,
        features=lambda image_ids: material.features(dataset, model, image_ids),
        images=lambda image_ids, batch_size: material.images(dataset, image_ids, batch_size),
        decode=decode,
        source=Source(**params.source) if params.source else None,
        workers=runtime.threads(),
        work=work,
        prompts=params.prompts,
    )


def _publish(folder: Path, files: list[Path]) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / file.name, file)
