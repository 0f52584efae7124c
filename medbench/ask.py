"""One question about one image, by the same code path as `predict`: for a first try of a model."""

from pathlib import Path

from medbench import config as configuration
from medbench.config import Config
from medbench.datasets.images import decode
from medbench.errors import MedbenchError
from medbench.models import base


def ask(config: Config, model: str, image: Path, question: str, architecture: str | None = None) -> str:
    """The answer of a model of the registry, or of a checkpoint folder with its architecture.

    Raises MedbenchError for a model that answers no questions, an image that is absent or broken, a question that is too long.
    """
    from medbench.models.asking import Asking
    from medbench.models.generative_base import Query

    module, checkpoint, revision = _source(config, model, architecture)
    try:
        picture = decode(image.read_bytes())
    except FileNotFoundError:
        raise MedbenchError(image, "the file does not exist", "give an image") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise MedbenchError(image, f"is no readable image ({' '.join(str(error).split())[:120]})", "give a JPEG or PNG") from None
    put = Asking(**config.asking.model_dump())
    loaded = base.load(module, checkpoint, revision)
    inputs = loaded.inputs([Query(f"question {question!r}", picture, put.text(question))], put.max_new_tokens)
    return str(loaded.generate(inputs, put.max_new_tokens)[0].text)


def _source(config: Config, model: str, architecture: str | None) -> tuple[str, str | None, str | None]:
    if architecture:
        return base.module_name("generative", architecture), model, None
    if model not in config.models:
        remedy = "choose from `python -m medbench models`, or give a folder and --architecture"
        raise MedbenchError(f"model {model}", "is in no registry", remedy)
    configuration.require_architecture(config, model, "ask")
    entry = config.models[model]
    if entry.kind != "generative":
        raise MedbenchError(f"model {model}", f"is {entry.kind}: it answers no questions", "choose a generative one")
    found = configuration.checkpoint(config, model)
    if entry.pretrain and not Path(str(found)).is_dir():
        raise MedbenchError(f"model {model}", "is not pretrained yet", f"run `snakemake --cores all {found}`")
    return base.module_name(entry.kind, entry.architecture), found, entry.revision
