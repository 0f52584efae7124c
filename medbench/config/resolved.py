"""A validated run with its registries, and what is looked up in it: recipes, folders of weights and of official files."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from medbench import paths
from medbench.config.complaints import one_line
from medbench.config.datasets import Dataset, is_fetched
from medbench.config.models import Model, can_run, runnable
from medbench.config.modes import ContrastiveLora, GenerativeLora, Lora, Probe, ZeroShot
from medbench.config.runs import Run
from medbench.config.templates import Asking
from medbench.errors import MedbenchError
from medbench.jobs import digests
from medbench.jobs.addresses import VARIABLE

TRACKED = False  # what is decided here reaches a job by its parameters


class Config(NamedTuple):
    """A validated run with the registries it selects from."""

    run: Run
    models: dict[str, Model]
    datasets: dict[str, Dataset]
    modes: dict[str, ZeroShot | Probe | Lora]
    asking: Asking
    digests: dict[str, str]  # model -> digest of its local folder of weights, filled when it is asked for
    left_out: Mapping[str, str] = MappingProxyType({})  # cell -> why it cannot be made any more: filled at the start


def recipe(config: Config, model: str, mode: str) -> ZeroShot | Probe | ContrastiveLora | GenerativeLora:
    """The recipe of a mode as one model runs it: the section of its kind, with the model's overrides.

    Raises MedbenchError when the model cannot run the mode.
    """
    entry, chosen = config.models[model], config.modes[mode]
    if not can_run(entry, mode, chosen):
        where, found = f"{config.run.registries.models}: model {model}", f"cannot run mode {mode!r}"
        found += f", whose kind in {config.run.registries.modes} is {chosen.kind}"
        raise MedbenchError(where, found, f"a {entry.kind} model runs {', '.join(runnable(entry.kind))}")
    section: Any = chosen
    if isinstance(chosen, Lora):
        section = chosen.contrastive if entry.kind == "contrastive" else chosen.generative
    try:
        merged = type(section).model_validate({**section.model_dump(), **entry.overrides.get(mode, {})})
    except ValidationError as error:
        raise one_line(f"{config.run.registries.models}: model {model}, overrides of {mode}", error) from None
    return merged  # type: ignore[no-any-return]


def checkpoint(config: Config, model: str) -> str | None:
    """Where a model's weights are: a hub id or folder, the folder of one that the workflow pretrains, or None for a baseline.

    Raises MedbenchError when an environment variable in it is not set.
    """
    entry = config.models[model]
    if entry.pretrain or entry.checkpoint is None:
        return str(paths.model_folder(model)) if entry.pretrain else None
    return _expanded(entry.checkpoint, "checkpoint", f"{config.run.registries.models}: model {model}")


def checkpoint_digest(config: Config, model: str) -> str | None:
    """SHA-256 of a local folder of weights, so that replaced weights rerun their cells; None for all that is pinned otherwise."""
    entry = config.models[model]
    place = Path(checkpoint(config, model) or "")
    if entry.pretrain or entry.checkpoint is None or not place.is_dir():
        return None
    if model not in config.digests:
        config.digests[model] = digests.tree(place)
    return config.digests[model]


def raw_dir(config: Config, dataset: str) -> Path | None:
    """Folder of a data set's official files with environment variables expanded; None where it is generated.

    Raises MedbenchError when a variable is unset or the folder does not exist; not where `fetch` brings them.
    """
    if is_fetched(config.datasets[dataset]):
        return paths.raw(dataset)
    return expand_raw_dir(config.datasets[dataset].raw_dir, f"{config.run.registries.datasets}: data set {dataset}")


def expand_raw_dir(value: str | None, where: str, key: str = "raw_dir") -> Path | None:
    """As `raw_dir`, from the entry's own text; `where` and `key` are for messages."""
    if value is None:
        return None
    folder = Path(_expanded(value, key, where))
    if not folder.is_dir():
        if folder.exists():
            raise MedbenchError(where, f"{key} {folder} is a file", "give the folder that holds it")
        raise MedbenchError(where, f"{key} {folder} does not exist", f"put the files there or change {key}")
    return folder


def _expanded(value: str, key: str, where: str) -> str:
    """With environment variables and `~` replaced. Raises MedbenchError for a variable that is not set."""
    for name in VARIABLE.findall(value):
        if not os.environ.get(name):
            raise MedbenchError(where, f"{key} {value} needs the variable {name}, which is not set", f"export {name}=<folder>")
    return os.path.expanduser(os.path.expandvars(value)) if VARIABLE.search(value) or value.startswith("~") else value
