"""Which model a job loads and how questions are put to it, as its parameters say it: one place for all stages."""

from pathlib import Path
from typing import Any

from medbench import paths
from medbench.config import Config, ZeroShot, checkpoint, checkpoint_digest
from medbench.models import loading

TRACKED = False  # what is decided here reaches a job by its parameters


def models(config: Config) -> tuple[str, ...]:
    """Names of all models that a run uses: those that it compares, then judges that are not among them."""
    return tuple(dict.fromkeys((*config.run.models, *config.run.judges)))


def weights(config: Config, model: str) -> dict[str, Any]:
    """Fields of medbench.models.checkpoint.Source that say which weights are loaded."""
    entry = config.models[model]
    return {
        "module": loading.module_name(entry.kind, entry.architecture),
        "checkpoint": checkpoint(config, model),
        "revision": entry.revision,
        "companions": entry.companions,
        "checksums": entry.checksums,
        "digest": checkpoint_digest(config, model),
    }


def made_here(source: dict[str, Any], model: str) -> list[Path]:
    """The folder of a model that the workflow itself makes; nothing for a checkpoint from elsewhere, or for a baseline."""
    return [folder] if source["checkpoint"] == str(folder := paths.model_folder(model)) else []


def source(config: Config, model: str) -> dict[str, Any]:
    """All fields of medbench.models.checkpoint.Source."""
    entry = config.models[model]
    return {
        **weights(config, model),
        "batch_size": entry.batch_size,
        "bits": entry.bits,
        "processor": entry.processor,
        "options": entry.options,
    }


def reached(config: Config, model: str, dataset: str | None = None) -> dict[str, Any]:
    """Fields of medbench.remote.endpoint.Reached and medbench.remote.limits.Limits of a remote model; nothing for others.

    `dataset`: whose images and texts are sent; None where nothing of any is.
    """
    entry = config.models[model]
    if entry.endpoint is None:
        return {}
    run = {"run": config.run.run, "max_cost": config.run.max_cost}
    retired = entry.retired_on and str(entry.retired_on)
    send_to = ("*",) if dataset is None else config.datasets[dataset].send_to
    return {**entry.endpoint.model_dump(mode="json"), "retired_on": retired, "send_to": send_to} | run


def asking(config: Config, model: str) -> dict[str, Any] | None:
    """Fields of medbench.models.asking.Asking for a generative model, None for others. The entry's own token budget wins."""
    entry = config.models[model]
    if entry.kind not in ("generative", "remote"):
        return None
    fields = config.asking.model_dump(include={"question", "yes_no", "max_new_tokens"})
    return fields if entry.max_new_tokens is None else {**fields, "max_new_tokens": entry.max_new_tokens}


def choosing(config: Config, model: str, mode: ZeroShot) -> dict[str, Any] | None:
    """Fields of medbench.models.asking.Choosing for a model that is asked, None for a baseline. The entry's own token budget wins."""
    if config.models[model].kind == "baseline":
        return None
    return {
        "template": config.asking.choices, "told": config.asking.no_image, "wording": mode.wording, "rotations": mode.rotations,
        "max_new_tokens": config.models[model].max_new_tokens or config.asking.max_new_tokens,
    }  # fmt: skip


def application(source: dict[str, Any], dataset: str) -> tuple[str, str]:
    """What a person must do for files that no program may fetch: found, remedy."""
    found = f"its files need an application: {source['apply']}"
    return found, f"put {source['place']} into {paths.raw(dataset)}, or set raw_dir, then run the same command again"
