"""A mini model of the demo in hub format: copied where one comes with medbench by the same recipe, else pretrained."""

from typing import Any, NamedTuple

from medbench import paths
from medbench.config import Config
from medbench.demo import shipped
from medbench.errors import MedbenchError
from medbench.jobs import files, partial
from medbench.jobs.stage import Needs, Stage


class Params(NamedTuple):
    """What the weights follow from. `files`: name -> SHA-256 of the model that comes with medbench; None where it is trained."""

    architecture: str
    corpus: tuple[str, ...]
    steps: int
    batch_size: int
    pool_size: int
    seed: int
    files: dict[str, str] | None

    @property
    def recipe(self) -> shipped.Recipe:
        """As it stands in the folder of a model that comes with medbench."""
        return shipped.Recipe(*self[:-1])


def params(config: Config, model: str) -> Params:
    """Parameters of one mini model. Raises MedbenchError when the registry gives it no pretraining."""
    entry = config.models[model]
    if entry.pretrain is None:
        raise MedbenchError(f"model {model}", "is not pretrained by the workflow", "give it `pretrain` instead of `checkpoint`")
    made, seed = entry.pretrain, config.run.seed + entry.pretrain.seed_offset
    recipe = shipped.Recipe(entry.architecture, made.corpus, made.steps, made.batch_size, made.pool_size, seed)
    return Params(*recipe, shipped.find(model, recipe))


def run(params: Params, model: str) -> dict[str, Any]:
    """Write the folder of the model: made aside, then put in place whole. Whether it was copied."""
    target = paths.model_folder(model)
    with partial.anew(f"pretrain-{model}", f"pretrain {model}") as folder:
        if params.files:
            shipped.copy(model, params.files, folder / target.name)
        else:
            _train(params, model, folder / target.name)
        files.publish(folder, [target])
    return {"shipped": params.files is not None}


def _train(params: Params, model: str, folder: Any) -> None:
    try:
        shipped.train(params.recipe, folder)
    except ValueError as error:
        raise MedbenchError(f"model {model}", str(error), "fix its `pretrain` entry") from None


STAGE = Stage(
    name="pretrain",
    keys=("model",),
    params=params,
    outputs=lambda model: [paths.model_folder(model)],
    run=run,
    uses=lambda params: () if params.files else (shipped.maker(params.architecture),),
    needs=lambda config, *names: Needs(memory_mb=3000, minutes=30),
)
