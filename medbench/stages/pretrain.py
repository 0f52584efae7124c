"""Pretrain a mini model of the demo and save it in hub format."""

import importlib
import shutil
from typing import NamedTuple

from medbench import partial, paths
from medbench.config import Config
from medbench.errors import MedbenchError

KEYS = ("model",)
_MAKERS = {"llava": "medbench.demo.minillava"}
_CONTRASTIVE = "medbench.demo.minimodels"


class Params(NamedTuple):
    """What the weights follow from."""

    module: str
    architecture: str
    corpus: tuple[str, ...]
    steps: int
    batch_size: int
    pool_size: int
    seed: int


def params(config: Config, model: str) -> Params:
    """Parameters of one mini model. Raises MedbenchError when the registry gives it no pretraining."""
    entry = config.models[model]
    if entry.pretrain is None:
        raise MedbenchError(f"model {model}", "is not pretrained by the workflow", "give it `pretrain` instead of `checkpoint`")
    made = entry.pretrain
    module = _MAKERS.get(entry.architecture, _CONTRASTIVE)
    seed = config.run.seed + made.seed_offset
    return Params(module, entry.architecture, made.corpus, made.steps, made.batch_size, made.pool_size, seed)


def modules(params: Params) -> tuple[str, ...]:
    """The code that makes the model."""
    return (params.module,)


def run(params: Params, model: str) -> None:
    """Write the folder of the model: made aside, then put in place whole."""
    target = paths.model_folder(model)
    with partial.hold(paths.partial(f"pretrain-{model}"), f"pretrain {model}") as held:
        aside = held / "model"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            maker = importlib.import_module(params.module)
            sizes = {"steps": params.steps, "batch_size": params.batch_size, "pool_size": params.pool_size}
            maker.pretrain(params.architecture, list(params.corpus), aside, params.seed, **sizes)
        except ValueError as error:
            raise MedbenchError(f"model {model}", str(error), "mend its `pretrain` entry") from None
        shutil.rmtree(target, ignore_errors=True)  # an older result, or the empty folder that Snakemake made
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(target)
