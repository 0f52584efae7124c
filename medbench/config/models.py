"""What `config/models.yaml` may say, and which modes a model can run."""

import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from medbench import tasks
from medbench.config.modes import Lora, Probe, ZeroShot
from medbench.config.strict import Mark, Sha256, Slug, Strict
from medbench.errors import MedbenchError

TRACKED = False  # what is decided here reaches a job by its parameters

Kind = Literal["contrastive", "generative", "remote", "baseline"]


class Pretrain(Strict):
    """How the workflow itself makes a mini model (demo)."""

    corpus: tuple[str, ...] = Field(min_length=1)
    steps: int = Field(ge=1)
    batch_size: int = Field(32, ge=2)
    pool_size: int = Field(4000, ge=2)  # pairs drawn
    seed_offset: int = 0


class AboutModel(Strict):
    """For people; changing it reruns the report only."""

    label: str | None = None
    licence: str | None = None
    gated: bool = False
    parameters: int | None = Field(None, ge=1)  # of the published configuration; a test counts them anew
    encoder: str | None = None  # this and the two below: of the article's tables and the models' own
    backbone: str | None = None
    training_data: str | None = None
    unpinned: str | None = None  # why there is no revision
    notes: tuple[str, ...] = ()  # where what runs here differs from what its authors ran, or is not known to be the same
    citation: str | None = None


class Endpoint(Strict):
    """How the service of a remote model is reached, and how fast it is asked. Nothing here changes an answer or reruns a cell."""

    url: Mark  # base address; `${VARIABLE}` is expanded when it is asked
    key: str | None = None  # name of the environment variable that holds the API key; null where the server asks for none
    returned_as: str | None = None  # what the server calls the model, where that is neither `checkpoint` nor a dated snapshot of it
    price: str | None = None  # provider/model of the package genai-prices; null: costs nothing, or is not known
    concurrency: int = Field(16, ge=1, le=1000)  # requests in flight, of all cells together
    timeout: float = Field(600, gt=0)  # s a try
    max_wait: float = Field(600, ge=0)  # s: a longer wait for the service ends the job, which says when to go on
    batch: bool = False  # asked by its batch API, within a day for half the price
    batch_wait: float = Field(90_000, gt=0)  # s for batches; then the job ends, and a later run finds them again

    @field_validator("key")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", value):
            raise ValueError("must be the name of an environment variable in capitals, never the key itself")
        return value


_FOR: dict[tuple[Kind, ...], tuple[str, ...]] = {
    ("generative",): ("gpus", "bits", "processor"),
    ("generative", "remote"): ("max_new_tokens", "thoughts"),
    ("remote",): ("options", "endpoint", "retired_on", "same_as"),
}
"""Keys of a model's entry that are for some kinds alone."""


class Model(Strict):
    """One entry of `config/models.yaml`."""

    family: Slug
    role: Literal["generalist", "specialist", "baseline"]
    architecture: Slug  # medbench/models/{kind}/{architecture}.py
    planned: Kind | None = None  # the kind of an architecture that has no file yet: its cells are listed, and each job says so
    checkpoint: Mark | None = None  # hub id or folder; absent for baselines and for mini models
    revision: Mark | None = None  # of a hub id: its commit; null, a branch or a tag: unpinned, which every start says
    companions: dict[str, str | None] = {}  # second repositories that the checkpoint's configuration names -> commit
    checksums: dict[str, Sha256] = {}  # file of the checkpoint -> SHA-256: another file is refused
    pretrained_on: tuple[Slug, ...] = ()  # modalities
    modes: tuple[Slug, ...] | None = None  # only these; null: all that its kind can run
    tasks: tuple[Slug, ...] | None = None  # only these; null: all that its kind answers. A baseline joins every data set of its tasks
    pretrain: Pretrain | None = None
    batch_size: int = Field(64, ge=1)
    gpus: int = Field(1, ge=1)  # of one job of a generative model, which is spread over them: for models larger than one
    bits: Literal[4, 8] | None = None  # load a generative model's weights quantised (needs bitsandbytes)
    max_new_tokens: int | None = Field(None, ge=1)  # exception from config/templates.yaml, for a model that must reason first
    thoughts: tuple[tuple[Mark, Mark], ...] = (
        ("<think>", "</think>"),
    )  # marks around what is no part of an answer; its scores rerun alone
    options: dict[str, Any] = {}  # of a remote model: what its file reads
    endpoint: Endpoint | None = None  # of a remote model: where it is asked
    same_as: Slug | None = None  # of a remote model: the model of the same checkpoint that runs here; the report compares the two
    retired_on: date | None = None  # of a remote model: from this day on nothing is asked; what is kept in the store stays usable
    processor: dict[str, Any] = {}  # exceptions from a generative model's own image processor, by its fields
    overrides: dict[Slug, dict[str, Any]] = {}  # mode -> fields of the recipe (of this model's kind) that differ
    about: AboutModel = AboutModel()

    @property
    def kind(self) -> Kind:
        """Follows from the folder that the architecture's file lies in. Raises MedbenchError where there is none."""
        if not self.has_file and self.planned is None:
            known = ", ".join(sorted(architectures()))
            raise MedbenchError(f"architecture {self.architecture}", "has no file in medbench/models", f"add it, or choose from {known}")
        return architectures().get(self.architecture) or self.planned  # type: ignore[return-value]

    @property
    def has_file(self) -> bool:
        """Whether the model can run: the registries know more models than there are architectures."""
        return self.architecture in architectures()

    @model_validator(mode="after")
    def _check(self) -> "Model":
        kind = architectures().get(self.architecture) or self.planned
        if (kind or self.role) not in ("baseline", "remote") and (self.checkpoint is None) == (self.pretrain is None):
            raise ValueError("give either `checkpoint` (hub id or folder) or `pretrain`")
        if unknown := sorted({*(self.tasks or ())} - {*tasks.names()}):
            raise ValueError(f"`tasks` names {', '.join(map(repr, unknown))}: choose from {', '.join(tasks.names())}")
        if self.role == "baseline" and not (self.tasks and self.modes):
            raise ValueError("a baseline needs `tasks` and `modes`: it joins every data set of these tasks in these modes")
        for kinds, names in _FOR.items():
            for name in names:
                if kind is not None and kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"`{name}` is for {' and '.join(kinds)} models")
        return self


@cache
def architectures() -> dict[str, Kind]:
    """Every architecture that has a file -> the kind of its models."""
    kinds: tuple[Kind, ...] = ("contrastive", "generative", "remote", "baseline")
    folder = Path(__file__).parents[1] / "models"
    return {file.stem.replace("_", "-"): kind for kind in kinds for file in (folder / kind).glob("*.py") if file.stem != "__init__"}


@cache
def runnable(kind: Kind) -> tuple[str, ...]:
    """Recipes that models of a kind can run, whatever the task."""
    return tuple(sorted({recipe for name in tasks.names() for of_kind, recipe in tasks.get(name).predicted_by if of_kind == kind}))


def can_run(model: Model, mode: str, entry: ZeroShot | Probe | Lora) -> bool:
    """Whether a model's kind, and its own list of modes, admit a mode."""
    if isinstance(entry, Lora) and model.kind not in entry.models:
        return False
    if isinstance(entry, ZeroShot) and entry.image != "own" and model.kind not in ("generative", "remote"):
        return False
    return entry.kind in runnable(model.kind) and (model.modes is None or mode in model.modes)
