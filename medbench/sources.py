"""Which model a job loads and how questions are put to it, as its parameters say it: one place for all stages."""

from typing import Any

from medbench.config import Config, checkpoint, checkpoint_digest
from medbench.models import base


def weights(config: Config, model: str) -> dict[str, Any]:
    """Fields of medbench.models.checkpoint.Source that say which weights are loaded."""
    entry = config.models[model]
    return {
        "module": base.module_name(entry.kind, entry.architecture),
        "checkpoint": checkpoint(config, model),
        "revision": entry.revision,
        "companions": entry.companions,
        "checksums": entry.checksums,
        "digest": checkpoint_digest(config, model),
    }


def source(config: Config, model: str) -> dict[str, Any]:
    """All fields of medbench.models.checkpoint.Source."""
    entry = config.models[model]
    return {**weights(config, model), "batch_size": entry.batch_size, "bits": entry.bits, "processor": entry.processor}


def asking(config: Config, model: str) -> dict[str, Any] | None:
    """Fields of medbench.models.asking.Asking for a generative model, None for others. The entry's own token budget wins."""
    entry = config.models[model]
    if entry.kind != "generative":
        return None
    fields = config.asking.model_dump()
    return fields if entry.max_new_tokens is None else {**fields, "max_new_tokens": entry.max_new_tokens}
