"""Adapt a model to a data set: train what the mode's recipe says on train and val, certify it, save it."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from medbench import paths, tasks
from medbench.config import Config, needs, recipe, recipe_kind, sources
from medbench.errors import MedbenchError
from medbench.jobs import files, integrity, partial, process, records, seeding
from medbench.jobs.stage import Needs, Stage
from medbench.models import loading


class Params(NamedTuple):
    """What the weights follow from besides the data and, for a probe, its cached features. `source` is None for a probe."""

    method: str  # module of medbench.adapt
    task: str
    source: dict[str, Any] | None  # fields of medbench.models.checkpoint.Source
    recipe: dict[str, Any]
    classes: tuple[str, ...]
    seed: int
    asking: dict[str, Any] | None = None  # fields of medbench.models.asking.Asking, where questions are asked
    deterministic: bool = False  # kernels of a GPU
    leak_free: bool = False  # without the samples whose image stands in test too
    prompts: tuple[tuple[str, ...], ...] | None = None  # deciding prompts of each class, where they are the head


def params(config: Config, dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell. Raises MedbenchError when its mode adapts nothing."""
    entry, data, kind = config.models[model], config.datasets[dataset], recipe_kind(config.modes[mode])
    method = tasks.get(data.task).adapted_by.get((entry.kind, kind))
    if method is None:
        found = f"mode {mode!r} ({kind}) adapts no {entry.kind} model on {data.task}"
        raise MedbenchError(f"cell {dataset}/{model}/{mode}", found, "choose another mode")
    chosen = recipe(config, model, mode).model_dump(mode="json", exclude={"about"})
    source = sources.source(config, model) if "model" in method.reads else None
    return Params(
        method.module,
        data.task,
        source,
        chosen,
        data.classes,
        config.run.seed,
        asking=sources.asking(config, model),
        deterministic=config.run.deterministic and source is not None,
        leak_free=bool(getattr(config.modes[mode], "leak_free", False)),
        prompts=tuple(data.prompts["main"][name] for name in data.classes) if chosen.get("target") == "text" else None,
    )


def inputs(params: Params, dataset: str, model: str, mode: str) -> list[Path]:
    """Features of every split for a probe; samples, images and the checkpoint for LoRA. Never the test split."""
    files = [paths.samples(dataset, split) for split in ("train", "val")] + ([paths.duplicates(dataset)] if params.leak_free else [])
    if params.source is None:
        return [*files, paths.embeddings(dataset, model)]
    return [*files, paths.images(dataset), *sources.made_here(params.source, model)]


def uses(params: Params) -> tuple[str, ...]:
    """The method, how the task reads samples, and where a model is loaded its architecture."""
    task = tasks.get(params.task).code("samples", "read_samples", "asked")
    return (params.method, *task, *(loading.modules(params.source) if params.source else ()))


def run(params: Params, dataset: str, model: str, mode: str, work: partial.Work) -> dict[str, Any]:
    """Write weights and certificate of one cell. A cell whose certificate fails is a MedbenchError, and nothing is written."""
    from medbench.adapt import certificate
    from medbench.datasets import stored

    left_out = stored.duplicates_of_test(dataset) if params.leak_free else frozenset[str]()
    if params.deterministic:
        seeding.deterministic_kernels()
    names = (dataset, model, mode)
    job = (_question_job if params.asking else _diagnosis_job)(params, *names, work, left_out)
    adapted = importlib.import_module(params.method).adapt(job)
    certificate.require(adapted.certificate)
    weights = adapted.base or records.recorded_weights(paths.embeddings(dataset, model))
    digests = integrity.of_folder(adapted.weights)
    certificate.write(adapted.certificate, work.folder / "certificate.json", weights, digests)
    files.publish(work.folder, [*reversed(paths.adapter_files(*names))])  # the certificate last: without it the cell is not finished
    trained = sum(tensor.size for tensor in adapted.certificate.evidence.tensors)
    computed = {str(paths.adapter_weights(*names) / name): sha256 for name, sha256 in digests.items()}
    facts = {**work.facts(), "parameters_trained": trained, "weights": weights, integrity.COMPUTED: computed}
    return {**facts, **({"left_out": len(left_out)} if params.leak_free else {})}


def _question_job(params: Params, dataset: str, model: str, mode: str, work: partial.Work, left_out: frozenset[str]) -> Any:
    from medbench.adapt.asked import QuestionJob
    from medbench.datasets import stored
    from medbench.datasets.images import decode
    from medbench.models.asking import asking
    from medbench.models.checkpoint import Source

    assert params.source is not None and params.asking is not None, "questions are asked of a model"
    ask = tasks.get(params.task).asked
    assert ask is not None, "a task that asks says how"
    return QuestionJob(
        cell=f"{dataset}/{model}/{mode}",
        train=ask(dataset, "train", left_out),
        val=ask(dataset, "val", left_out),
        test_ids=stored.sample_ids(dataset, "test"),
        recipe=params.recipe,
        seed=params.seed,
        asking=asking(params.asking),
        images=lambda image_ids, batch_size: stored.images(dataset, image_ids, batch_size),
        decode=decode,
        source=Source(**params.source),
        work=work,
    )


def _diagnosis_job(params: Params, dataset: str, model: str, mode: str, work: partial.Work, left_out: frozenset[str]) -> Any:
    from medbench.adapt.job import Job
    from medbench.datasets import stored
    from medbench.datasets.images import decode
    from medbench.models.checkpoint import Source

    read = tasks.get(params.task).read_samples
    assert read is not None, "a task with labels says how they are read"
    return Job(
        cell=f"{dataset}/{model}/{mode}",
        classes=params.classes,
        train=read(dataset, "train", len(params.classes), left_out),
        val=read(dataset, "val", len(params.classes), left_out),
        test_ids=stored.sample_ids(dataset, "test"),
        recipe=params.recipe,
        seed=params.seed,
        features=lambda image_ids: stored.features(dataset, model, image_ids),
        images=lambda image_ids, batch_size: stored.images(dataset, image_ids, batch_size),
        decode=decode,
        source=Source(**params.source) if params.source else None,
        workers=process.threads(),
        work=work,
        prompts=params.prompts,
    )


def _needs(config: Config, dataset: str, model: str, mode: str) -> Needs:
    loads = params(config, dataset, model, mode).source is not None
    return needs.model_job(config, "adapt", {"dataset": dataset, "model": model, "mode": mode}, loads)


STAGE = Stage(
    name="adapt",
    keys=("dataset", "model", "mode"),
    params=params,
    inputs=inputs,
    outputs=paths.adapter_files,
    run=run,
    uses=uses,
    needs=_needs,
    resumes=True,
)
