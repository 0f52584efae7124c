"""One question about one image, by the same code path as `prepare` and `predict`: for a first try of a model.

Example: python -m medbench ask mini-llava image.png "Is there a nodule?"
Example: python -m medbench ask o3 image.png "Is there a nodule?" --send
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from medbench import command, paths
from medbench import config as configuration
from medbench.config import Config, sources
from medbench.datasets import ingest
from medbench.datasets.images import ImageRow, decode
from medbench.errors import MedbenchError, choose, visible
from medbench.jobs import devices, files
from medbench.jobs.addresses import host
from medbench.models import loading
from medbench.models.checkpoint import Source


def ask(config: Config, model: str, image: Path, question: str, architecture: str | None = None, send: bool = False) -> str:
    """The answer of a model of the registry, or of a checkpoint folder with its architecture. `send`: image and question may leave
    this machine; what a remote model's answer cost goes to stderr.

    Raises MedbenchError for a model that answers no questions, a remote one without `send`, an image that is absent or broken, a question
    that is too long.
    """
    if not question.strip():
        raise MedbenchError("question", "is empty", "ask one")
    source, fields, gpus = _chosen(config, model, architecture)
    reached = {} if architecture else sources.reached(config, model)
    if reached and not send:
        whom = host(os.path.expandvars(reached["url"])) or reached["url"]
        leaving = f"is asked at {whom}: the image and the question would leave this machine"
        raise MedbenchError(f"model {model}", leaving, "give --send where both may be sent there")
    if kind := files.irregular(image):
        raise MedbenchError(image, f"is {kind}, not a file", "give an image")
    found = ingest.check(image)
    if isinstance(found, ingest.Fault):
        missing = found.reason == "missing-image"
        raise MedbenchError(image, "the file does not exist" if missing else f"is no readable image ({found.detail})", "give a JPEG or PNG")
    if "torch" not in sys.modules:  # in a notebook it has seen the devices already
        devices.claim(gpus)
    from medbench.jobs.microbatching import Microbatching
    from medbench.models import answering
    from medbench.models.asking import Asking

    put, row = Asking(**fields), ImageRow("image", found.image, False)
    questions = answering.Questions(
        [f"question {question!r}"], [put.text(question)], [row.image_id], lambda names, size: [[row]], decode, put.max_new_tokens
    )
    answerer = answering.load(source)
    if reached:  # directly, and no run's money
        answerer.told = reached | {"batch": False, "run": "by-hand", "max_cost": None}
    (answers,) = answerer.answers(questions, (), Microbatching())
    if reached:
        print(_cost(answerer.facts(questions, answers)), file=sys.stderr)
    return answers[0].text


def _cost(facts: dict[str, Any]) -> str:
    """Of a remote model's answer, in words."""
    ended, price = ", ".join(facts["endpoint"]["reasons"]), facts.get("dollars")
    paid = "its entry names no price" if price is None else f"{price:.6f} $ by genai-prices"
    tokens = f"{facts['input_tokens']:,} tokens in, {facts['output_tokens']:,} out"
    return f"{facts['weights']['model']}: {ended}; {tokens}: {paid}; kept in {paths.store()}: asked again it costs nothing"


def _chosen(config: Config, model: str, architecture: str | None) -> tuple[Source, dict[str, Any], int]:
    """What to load, how to ask, on how many GPUs."""
    if architecture:
        if architecture not in (known := [name for name, kind in configuration.architectures().items() if kind == "generative"]):
            raise MedbenchError(f"--architecture {architecture}", "is none of a model that answers questions", choose(architecture, known))
        words = config.asking.model_dump(include={"question", "yes_no", "max_new_tokens"})
        return Source(loading.module_name("generative", architecture), model, batch_size=1), words, 1
    if model not in config.models:
        names = [name for name, entry in config.models.items() if entry.has_file and entry.kind in ("generative", "remote")]
        remedy = f"{choose(model, names)}, or give a folder and --architecture"
        raise MedbenchError(f"model {model}", "is in no registry", remedy)
    configuration.require_architecture(config, model, "ask")
    entry = config.models[model]
    if entry.kind not in ("generative", "remote"):
        raise MedbenchError(f"model {model}", f"is {entry.kind}: it answers no questions", "choose a generative one")
    found = configuration.checkpoint(config, model)
    if entry.pretrain and not Path(str(found)).is_dir():
        raise MedbenchError(f"model {model}", "is not pretrained yet", f"run `snakemake --cores all {found}`")
    return Source(**sources.source(config, model)), sources.asking(config, model) or {}, 0 if entry.kind == "remote" else entry.gpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("model", help="of the registry, or a checkpoint's folder with --architecture")
    parser.add_argument("image", type=command.given)
    parser.add_argument("question")
    parser.add_argument("--architecture", help="llava, qwen2-vl, ...: of a checkpoint that stands in no registry")
    parser.add_argument("--send", action="store_true", help="of a remote model: the image and the question may leave this machine")
    command.add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Do it."""
    answer = ask(command.read_config(args), args.model, args.image, args.question, args.architecture, args.send)
    print(visible(answer) if sys.stdout.isatty() else answer)  # a program gets it as it is
