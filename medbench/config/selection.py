"""What of the registries a run may choose: names that exist, models that run its modes, data that may be sent."""

import difflib
import importlib
import os
import re
from collections import Counter
from pathlib import Path

from pydantic import ValidationError

from medbench import tasks
from medbench.config.complaints import one_line
from medbench.config.datasets import layouts
from medbench.config.models import architectures, can_run
from medbench.config.resolved import Config, checkpoint, raw_dir, recipe
from medbench.errors import MedbenchError, choose
from medbench.jobs import addresses
from medbench.jobs.addresses import VARIABLE

TRACKED = False  # what is decided here reaches a job by its parameters


def check_selection(config: Config, source: str) -> None:
    """Every name of the run stands in a registry, every model can run a mode of the run and every mode is run by a model, paths exist."""
    run = config.run
    for word, names, known, file in (
        ("models", run.models, config.models, run.registries.models),
        ("datasets", run.datasets, config.datasets, run.registries.datasets),
        ("modes", run.modes, config.modes, run.registries.modes),
    ):
        for name in names:
            if name not in known:
                raise MedbenchError(source, f"{word}: {name!r} is not in {file}", choose(name, known))
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise MedbenchError(source, f"{word}: {twice!r} is listed twice", "list it once")
    for name, model in config.models.items():
        for mode in {*model.overrides, *(model.modes or ())} if model.has_file else ():
            if mode not in config.modes:
                raise MedbenchError(f"{run.registries.models}: model {name}", f"names mode {mode!r}", choose(mode, config.modes))
            recipe(config, name, mode)
    for model_name in run.models:
        model = config.models[model_name]
        if model.same_as is not None and model.same_as not in config.models:
            where = f"{run.registries.models}: model {model_name}"
            raise MedbenchError(where, f"same_as {model.same_as!r} is in no registry", choose(model.same_as, config.models))
        require_architecture(config, model_name, source, planned=True)
        if not any(can_run(model, mode, config.modes[mode]) for mode in run.modes):
            raise MedbenchError(
                source, f"model {model_name!r} ({model.kind}) can run none of the modes {list(run.modes)}", "add a mode or drop the model"
            )
        _check_remote(config, model_name)
        place = checkpoint(config, model_name)
        if model.kind != "remote" and model.checkpoint and place and place.startswith((".", "/")) and not Path(place).is_dir():
            where, found = f"{run.registries.models}: model {model_name}", f"checkpoint {place} does not exist"
            raise MedbenchError(where, found, "give a hub id or a folder")
    for mode in run.modes:
        if not any(can_run(config.models[model], mode, config.modes[mode]) for model in run.models):
            raise MedbenchError(
                source, f"mode {mode!r} can be run by none of the models {list(run.models)}", "add a model or drop the mode"
            )
    for dataset in run.datasets:
        require_layout(config, dataset, source)
        raw_dir(config, dataset)
        for model_name in run.models if run.unsent == "refuse" else ():
            if host := unsent(config, dataset, model_name):
                found = f"model {model_name} would send its images and questions to {host}; its licence: {licence(config, dataset)}"
                remedy = f"read its terms, then add `send_to: [{host}]` to its entry, or leave the model out"
                raise MedbenchError(f"{run.registries.datasets}: data set {dataset}", found, remedy)
    for judge in run.judges:
        if judge not in config.models:
            raise MedbenchError(source, f"judge: {judge!r} is not in {run.registries.models}", choose(judge, config.models))
        require_architecture(config, judge, source)
        require_writer(config, judge, source, "judge: ")
        for dataset in run.datasets:
            if tasks.get(config.datasets[dataset].task).judged and (host := unsent(config, dataset, judge)):
                found = f"judge {judge} would send its questions, references and answers to {host}; its licence: {licence(config, dataset)}"
                remedy = f"read its terms, then add `send_to: [{host}]` to its entry, or leave the judge out"
                raise MedbenchError(f"{run.registries.datasets}: data set {dataset}", found, remedy)


def _check_remote(config: Config, model: str) -> None:
    """Raise MedbenchError for a remote model's entry that the file of its protocol cannot use, where that says so."""
    entry, where = config.models[model], f"{config.run.registries.models}: model {model}"
    if entry.kind != "remote" or not entry.has_file:
        return
    check = getattr(importlib.import_module(f"medbench.models.remote.{entry.architecture.replace('-', '_')}"), "check", None)
    if check is None:
        return
    if entry.endpoint is None or entry.checkpoint is None:
        remedies = {"endpoint": "its `url`, where it is asked", "checkpoint": "the name by which it is asked for"}
        absent = "endpoint" if entry.endpoint is None else "checkpoint"
        raise MedbenchError(where, f"key {absent!r} is missing", f"give {remedies[absent]}")
    try:
        check(entry.options)
    except ValidationError as error:
        raise one_line(f"{where}, options", error, "see docs/remote.md") from None
    except ValueError as error:
        raise MedbenchError(where, f"options: {error}", "see docs/remote.md") from None


def unsent(config: Config, dataset: str, model: str) -> str | None:
    """The host of a remote model's service to which a data set may not be sent; None where it may, is not, or nobody can tell yet."""
    entry, chosen = config.datasets[dataset], config.models[model]
    answers = entry.task in chosen.tasks if chosen.tasks is not None else chosen.kind in tasks.get(entry.task).answered_by
    if chosen.endpoint is None or not answers or not all(os.environ.get(name) for name in VARIABLE.findall(chosen.endpoint.url)):
        return None
    host = addresses.host(os.path.expandvars(chosen.endpoint.url))
    return None if {host, "*"} & set(entry.send_to) else host


def licence(config: Config, dataset: str) -> str:
    """Of a data set, in words."""
    return config.datasets[dataset].about.licence or "not stated"


def check_modalities(config: Config) -> None:
    """Raise MedbenchError where the run uses a modality that the registries spell in two ways: no model would be in-domain."""
    spelt: dict[str, Counter[str]] = {}
    for entry in config.datasets.values():
        spelt.setdefault(_letters(entry.modality), Counter())[entry.modality] += 1
    for model in config.models.values():
        for modality in model.pretrained_on:
            spelt.setdefault(_letters(modality), Counter())[modality] += 1
    files, said = config.run.registries, dict[str, tuple[str, tuple[str, ...]]]()
    said |= {f"{files.datasets}: data set {name}": ("modality", (config.datasets[name].modality,)) for name in config.run.datasets}
    said |= {f"{files.models}: model {name}": ("pretrained_on", config.models[name].pretrained_on) for name in config.run.models}
    for where, (key, modalities) in said.items():
        for modality in modalities:
            if (usual := spelt[_letters(modality)].most_common(1)[0][0]) != modality:
                raise MedbenchError(where, f"{key} {modality!r} is spelt otherwise elsewhere", f"did you mean {usual}?")


def _letters(name: str) -> str:
    """Equal for x-ray, xray, x-rays."""
    return re.sub("[^a-z0-9]", "", name.lower()).removesuffix("s")


def nearest_modality(config: Config, modality: str) -> str | None:
    """For a modality that no other entry has: one that is spelt much like it."""
    known = {one for model in config.models.values() for one in model.pretrained_on}
    return None if modality in known else next(iter(difflib.get_close_matches(modality, sorted(known), 1, 0.8)), None)


def require_architecture(config: Config, model: str, where: str, planned: bool = False) -> None:
    """Raise MedbenchError, which names `where` the model was chosen, when its architecture has no file yet.

    `planned`: let one pass that is announced as such, so that a run can list its cells.
    """
    if not config.models[model].has_file and not (planned and config.models[model].planned):
        found = f"model {model!r} has the architecture {config.models[model].architecture!r}, which has no file in medbench/models"
        raise MedbenchError(where, found, f"add it, or choose a model of {', '.join(sorted(architectures()))}")


def require_writer(config: Config, model: str, where: str, key: str = "") -> None:
    """Raise MedbenchError, which names `where` the model was chosen, and under which `key`, for one that writes no text."""
    if (kind := config.models[model].kind) not in ("remote", "generative"):
        raise MedbenchError(where, f"{key}{model!r} is a {kind} model, which writes nothing", "give an endpoint or a generative model")


def require_layout(config: Config, dataset: str, where: str) -> None:
    """Raise MedbenchError, which names `where` the data set was chosen, when its layout has no file yet."""
    if config.datasets[dataset].layout not in layouts():
        found = f"data set {dataset!r} has the layout {config.datasets[dataset].layout!r}, which has no file in medbench/datasets/layouts"
        raise MedbenchError(where, found, f"add it, or choose a data set of {', '.join(layouts())}")
