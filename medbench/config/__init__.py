"""Registries and run configuration, validated. The only place with defaults; `config/schema.json` is generated from here.

A *registry* (`config/{models,datasets,modes}.yaml`) says what is possible, a *run* (`config/config.yaml`, `config/nano.yaml`, ...)
selects from it by lists. Everything under `about` is for people: it is shown, and never reaches a job.
"""

import difflib
import importlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from medbench import paths, tasks
from medbench.errors import SHOWN, MedbenchError, choose
from medbench.jobs import addresses, digests, files, limits
from medbench.jobs.addresses import VARIABLE

TRACKED = False  # what is decided here reaches a job by its parameters

Kind = Literal["contrastive", "generative", "remote", "baseline"]
_PACKAGE = Path(__file__).parents[1]
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def _slug(name: str) -> str:
    if len(name) > limits.NAME:
        raise ValueError(f"a name has at most {limits.NAME} characters, not {len(name)}")
    return paths.slug(name)


def _inside(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("must lie inside the folder of the data set")
    return path


Slug = Annotated[str, AfterValidator(_slug)]
Inside = Annotated[str, AfterValidator(_inside)]
Mark = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Unknown keys are errors, and so are infinite numbers; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- modes: named recipes -------------------------------------------------------------------------------------------


class AboutMode(Strict):
    """For people; changing it reruns the report only."""

    label: str | None = None


class ZeroShot(Strict):
    """Off the shelf: class prompts for contrastive models, the bare question for generative ones."""

    kind: Literal["zero-shot"]
    about: AboutMode = AboutMode()
    image: Literal["own", "blank", "shuffled", "none"] = "own"  # controls of generative models: a grey image, another group's, none
    wording: Literal["as-is", "told", "options-only"] = "as-is"  # of lettered questions: "no image is given" said first; no question
    rotations: int = Field(4, ge=0, le=26)  # orders of a question's lettered options, drawn by the seed; 0: the data's own order


class Probe(Strict):
    """Linear probe on cached features.

    `regularised`: one C by mean validation AUROC over group-disjoint splits, refitted once on train + val; with `labels`, on so many of
    each class, in several draws. `published`: the study's recipe.
    """

    kind: Literal["probe"]
    about: AboutMode = AboutMode()
    solver: Literal["regularised", "published"] = "regularised"
    c_values: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1)
    n_splits: int = Field(5, ge=2)
    max_iter: int = Field(1000, ge=1)
    labels: int | None = Field(None, ge=2)  # of each class; null: all
    draws: int = Field(5, ge=1)
    learning_rate: float = Field(5e-5, gt=0)  # this and those below: of the published recipe
    weight_decay: float = Field(0.0, ge=0)
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(8, ge=1)
    leak_free: bool = False  # trained without the samples whose image stands in test too


class ContrastiveLora(Strict):
    """Adapters on the vision tower plus a linear head, trained end to end; the epoch is chosen on validation."""

    target: Literal["head", "text"] = "head"  # what is trained against: a linear head, or the class prompts as they are
    r: int = Field(8, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    learning_rate: float = Field(1e-4, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(32, ge=1)
    warmup: float = Field(0.1, ge=0, le=1)
    gradient_checkpointing: bool = False  # less memory for a third more time; equal results


class GenerativeLora(Strict):
    """Adapters on the language decoder; the projector is trained whole."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    learning_rate: float = Field(2e-4, gt=0)
    projector_learning_rate: float = Field(2e-5, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(16, ge=1)
    warmup: float = Field(0.03, ge=0, le=1)
    gradient_checkpointing: bool = False  # less memory for a third more time; equal results


class Lora(Strict):
    """Low-rank adaptation; a cell uses the section of its model's kind."""

    kind: Literal["lora"]
    about: AboutMode = AboutMode()
    models: tuple[Literal["contrastive", "generative"], ...] = ("contrastive", "generative")  # kinds that run it
    leak_free: bool = False  # trained without the samples whose image stands in test too
    contrastive: ContrastiveLora = ContrastiveLora()
    generative: GenerativeLora = GenerativeLora()


Mode = Annotated[ZeroShot | Probe | Lora, Field(discriminator="kind")]


@cache
def runnable(kind: Kind) -> tuple[str, ...]:
    """Recipes that models of a kind can run, whatever the task."""
    return tuple(sorted({recipe for name in tasks.names() for of_kind, recipe in tasks.get(name).predicted_by if of_kind == kind}))


# --- models ---------------------------------------------------------------------------------------------------------


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
    return {
        file.stem.replace("_", "-"): kind for kind in kinds for file in (_PACKAGE / "models" / kind).glob("*.py") if file.stem != "__init__"
    }


# --- data sets ------------------------------------------------------------------------------------------------------


class Counts(Strict):
    """Rows of each split as published, before a validation split is cut from train."""

    train: int = Field(ge=0)
    val: int = Field(0, ge=0)
    test: int = Field(ge=0)


class AboutDataset(Strict):
    """For people; changing it reruns the report only."""

    label: str | None = None
    licence: str | None = None
    access: Literal["open", "gated", "manual", "generated"] | None = None  # null: open where there is a source, else one's own
    citation: str | None = None
    published: Counts | None = None  # the study's own figures, which for questions count train and test together
    download: int | None = Field(None, ge=1)  # bytes of its official files, where they are known
    test_groups: int | None = Field(None, ge=1)  # patients, slides, ... of the test split, where they are too few for a verdict
    note: str | None = None


class Hub(Strict):
    """Files of a hub data set."""

    kind: Literal["hub"]
    repo: Mark
    revision: Mark | None = None  # a commit; null: the newest at the first fetch, which its record names
    patterns: tuple[str, ...] = Field(("*",), min_length=1)
    unpack: dict[str, Inside] = {}  # archive -> folder


class RemoteFile(Strict):
    """One file by its address."""

    url: Mark  # `${VARIABLE}` is expanded for the request alone: a key or password is written so
    name: Inside
    checksum: str | None = Field(None, pattern="(md5|sha256):[0-9a-f]+")
    enforce: bool = True  # false: a checksum from a secondary source, whose difference is only said
    bytes: int | None = Field(None, ge=1)
    unpack: Inside | None = None  # folder


class Addresses(Strict):
    """Files by their addresses."""

    kind: Literal["files"]
    files: tuple[RemoteFile, ...] = Field(min_length=1)


class Manual(Strict):
    """Files that a person must apply for."""

    kind: Literal["manual"]
    apply: str  # where
    place: str  # what to put into the data set's folder


FileSource = Annotated[Hub | Addresses | Manual, Field(discriminator="kind")]


class Sizes(Strict):
    """Samples to draw of each split, whole groups at a time; null: all."""

    train: int | None = Field(None, ge=1)
    val: int | None = Field(None, ge=1)
    test: int | None = Field(None, ge=1)


class Dataset(Strict):
    """One entry of `config/datasets.yaml`."""

    task: Slug  # medbench/tasks/{task}.py
    layout: Slug  # medbench/datasets/layouts/{layout}.py; an entry may stand here before its file does
    modality: Slug
    specialty: Slug
    raw_dir: Mark | None = None  # folder of the official files; `${VARIABLE}` is expanded
    source: FileSource | None = None  # where they come from when there is no raw_dir, or its variable is not set
    options: dict[str, Any] = {}  # the layout's own, checked by its file
    sample: Sizes | None = None  # a seeded draw of the groups
    max_side: int | None = Field(None, ge=32)  # pixels: larger images are shrunk once, when they are read
    background: Literal["white", "black"] = "white"  # behind what is transparent in an image
    bits: int | None = Field(None, ge=8, le=32)  # of its PNG and TIFF beyond 8; else as many as the largest value of all images needs
    classes: tuple[str, ...] = ()  # diagnosis: index = label
    prompts: dict[Slug, dict[str, tuple[str, ...]]] = {}  # set -> class -> prompts; `main` decides
    validation: float = Field(0.2, gt=0, lt=1)  # share of train's groups cut off where there is no official validation split
    max_drops: float = Field(0.0, ge=0, le=1)  # share of rows that may be dropped (missing or broken image) and counted
    allow_group_overlap: bool = False  # published that way (VQA-RAD): reported instead of refused
    send_to: tuple[str, ...] = ()  # hosts of services that its images and texts may be sent to, or "*": nobody, unless this says so
    test_only: bool = False  # no row is for training: adapted modes and baselines are left out. Own files are looked at for that
    expected: Counts | None = None  # another number of rows is an error,
    allow_counts: bool = False  # unless this says that it is known
    about: AboutDataset = AboutDataset()

    @model_validator(mode="after")
    def _check(self) -> "Dataset":
        if self.task not in tasks.names():
            raise ValueError(f"`task` must be one of {', '.join(tasks.names())}, found {self.task!r}")
        if tasks.get(self.task).rows != "labels" and (self.classes or self.prompts):
            raise ValueError(f"`classes` and `prompts` are for images with labels, and the task is {self.task}: remove them")
        tasks.get(self.task).check_entry(self)
        return self


@cache
def layouts() -> tuple[str, ...]:
    """Layouts that have a file."""
    return tuple(sorted(file.stem.replace("_", "-") for file in (_PACKAGE / "datasets" / "layouts").glob("[a-z]*.py")))


# --- runs -----------------------------------------------------------------------------------------------------------


class Statistics(Strict):
    """Bootstrap and tests (DESIGN.md, "Statistics")."""

    n_resamples: int = Field(1000, ge=100, le=limits.RESAMPLES)
    n_test_resamples: int = Field(10_000, ge=100, le=limits.RESAMPLES)  # of the primary metric: interval and p value
    level: float = Field(0.95, gt=0.5, lt=1)
    bca: bool = False
    margin: float = Field(0.02, gt=0)  # equivalence margin, in the metric's unit
    margins: dict[str, Annotated[float, Field(gt=0)]] = {}  # metric that decides -> its own: auroc, closed_accuracy, judge_score
    min_groups: int = Field(30, ge=2)  # effective groups (of the rarest class); under this: `few_groups`, no verdict
    reliability_threshold: float = Field(0.9, gt=0, lt=1)  # of accuracy on lettered questions: what a cell's lower bound should exceed

    @field_validator("margins")
    @classmethod
    def _are_primary(cls, value: dict[str, float]) -> dict[str, float]:
        every = [task for name in tasks.names() for task in [tasks.get(name)]]
        known = sorted({measure.metric for task in every for measure in (task.primary, task.secondary) if measure})
        if unknown := sorted(set(value) - set(known)):
            raise ValueError(f"no verdict is given on {', '.join(unknown)}: choose from {', '.join(known)}")
        return value

    def margin_of(self, metric: str) -> float:
        """The margin of a metric that decides."""
        return self.margins.get(metric, self.margin)


class NearDuplicates(Strict):
    """When two images count as near duplicates: their perceptual hashes differ in at most so many of 64 bits.

    At 4, every re-encoded and halved image of our real sets is found (97.7% to 100%), and 0 to 7% of unrelated images pair up.
    """

    threshold: int = Field(4, ge=0, le=16)
    in_leak_free: bool = False  # the leak-free subset leaves them out too, not only equal images


class Asking(Strict):
    """`config/templates.yaml`: how questions are put to generative models, and how long an answer may be. The same for all."""

    question: str = "{question}"
    yes_no: str = "{question} Answer yes or no."  # for a question that wants yes or no, judged by the question alone
    choices: str = "{question}\n\n{options}\n\nAnswer with the option's letter from the given choices directly."
    no_image: Mark = "No image is given. Guess what the right answer is."  # said before a lettered question by the wording `told`
    max_new_tokens: int = Field(32, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "Asking":
        for name, place in (("question", "question"), ("yes_no", "question"), ("choices", "question"), ("choices", "options")):
            if getattr(self, name).count(f"{{{place}}}") != 1:
                raise ValueError(f"`{name}` must hold {{{place}}} once, found {getattr(self, name)!r}")
        return self


class Judging(Strict):
    """Language models that compare open answers with their references. Verdicts of accuracies are as without them."""

    models: tuple[Slug, ...] = Field(min_length=1)  # of the registry: endpoints, or generative models that run here
    scorings: tuple[Literal["strict", "published"], ...] = Field(("strict",), min_length=1)
    repeats: int = Field(1, ge=1, le=20)  # times that each judge is asked; the score is the mean
    minimum: int = Field(1, ge=1)  # judges whose score is needed
    max_new_tokens: int = Field(512, ge=16)  # of a judgement; a judge that reasons needs more

    @model_validator(mode="after")
    def _check(self) -> "Judging":
        if self.minimum > len(self.models):
            raise ValueError(f"`minimum` is {self.minimum}, more than the {len(self.models)} of `models`")
        for name in ("models", "scorings"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"`{name}` names one twice")
        return self


class Registries(Strict):
    """Files of entries of one's own, relative to the Snakefile or else to the working directory: they are added to those that come with
    medbench, and stand above one of the same name."""

    models: str = "config/models.yaml"
    datasets: str = "config/datasets.yaml"
    modes: str = "config/modes.yaml"
    templates: str = "config/templates.yaml"


class Run(Strict):
    """A run configuration: `config/config.yaml` or any `--configfile`."""

    run: Slug
    models: tuple[Slug, ...] = Field(min_length=1)
    datasets: tuple[Slug, ...] = Field(min_length=1)
    modes: tuple[Slug, ...] = Field(min_length=1)
    seed: int = Field(0, ge=0)
    statistics: Statistics = Statistics()
    near_duplicates: NearDuplicates = NearDuplicates()
    registries: Registries = Registries()
    rerun_on_versions: bool = False
    max_cost: float | None = Field(None, ge=0)  # dollars that services with a `price` may cost; what is in flight then goes beyond it
    unsent: Literal["refuse", "leave-out"] = "refuse"  # what of cells whose data set may not be sent to their model's service
    warm: bool = False  # small models on CPUs: jobs are forked from one process that has imported all (medbench.jobs.warm)
    judge: Judging | None = None  # of open answers; null: none
    deterministic: bool = False  # GPU kernels that sum in a fixed order: slower; on a CPU they always do

    @property
    def judges(self) -> tuple[str, ...]:
        """Names of the models that judge answers."""
        return self.judge.models if self.judge else ()


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


def recipe_kind(mode: ZeroShot | Probe | Lora) -> str:
    """What a recipe does, by which tasks choose a method: zero-shot, probe, published-probe, few-shot or lora."""
    if isinstance(mode, Probe) and mode.labels is not None:
        return "few-shot"
    return "published-probe" if isinstance(mode, Probe) and mode.solver == "published" else mode.kind


def can_run(model: Model, mode: str, entry: ZeroShot | Probe | Lora) -> bool:
    """Whether a model's kind, and its own list of modes, admit a mode."""
    if isinstance(entry, Lora) and model.kind not in entry.models:
        return False
    if isinstance(entry, ZeroShot) and entry.image != "own" and model.kind not in ("generative", "remote"):
        return False
    return entry.kind in runnable(model.kind) and (model.modes is None or mode in model.modes)


# --- loading --------------------------------------------------------------------------------------------------------

E = TypeVar("E")


def load(run: Mapping[str, Any], root: Path, source: str = "configuration") -> Config:
    """Validate a merged run configuration (a mapping) and the registries under `root`.

    Raises MedbenchError: one line that names file, key, the value found and the remedy.
    """
    _check_values(run, source)
    try:
        checked = Run.model_validate(dict(run))
    except ValidationError as error:
        raise one_line(source, error) from None
    places = checked.registries
    config = Config(
        checked,
        _registry(root, places, "models", "model", Model),
        _registry(root, places, "datasets", "data set", Dataset),
        _registry(root, places, "modes", "mode", _ModeEntry),
        _asking(root, places),
        {},
    )
    _check_selection(config, source)
    _check_modalities(config)
    return config


def dump(config: Config) -> dict[str, Any]:
    """The whole configuration as JSON-able values, defaults filled in; `from_resolved` reads it back."""
    parts: dict[str, Any] = {"run": config.run.model_dump(mode="json")}
    for name in ("models", "datasets", "modes"):
        parts[name] = {slug: entry.model_dump(mode="json") for slug, entry in getattr(config, name).items()}
    parts |= {"asking": config.asking.model_dump(mode="json"), "left_out": dict(config.left_out)}
    return parts


def from_resolved(path: Path) -> Config:
    """The configuration that a start of the workflow wrote with `dump`, under its digest. Raises MedbenchError for another text."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise MedbenchError(path, "is gone", "give the same command again: every start writes it") from None
    if digests.digest(text) != path.stem:
        raise MedbenchError(path, "was changed or cut after this start wrote it", "give the same command again: every start writes it anew")
    parts = json.loads(text)
    return Config(
        Run.model_validate(parts["run"]),
        {slug: Model.model_validate(entry) for slug, entry in parts["models"].items()},
        {slug: Dataset.model_validate(entry) for slug, entry in parts["datasets"].items()},
        {slug: _ModeEntry.model_validate({"entry": entry}).entry for slug, entry in parts["modes"].items()},
        Asking.model_validate(parts["asking"]),
        {},
        parts["left_out"],
    )


def from_files(paths: list[Path], root: Path) -> Config:
    """As Snakemake does it: later files win, lists are replaced, dictionaries merged at any depth."""
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merged(merged, read_yaml(path, str(path)))
    return load(merged, root, ", ".join(map(str, paths)))


def _merged(below: Any, above: dict[str, Any]) -> dict[str, Any]:
    found = dict(below) if isinstance(below, dict) else {}
    for key, value in above.items():
        found[key] = _merged(found.get(key), value) if isinstance(value, dict) else value
    return found


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """A YAML mapping; duplicate keys are errors, since the later one would silently win. Raises MedbenchError, also beyond limits."""
    if kind := files.irregular(path):
        raise MedbenchError(name, f"is {kind}, not a file", "give a file")
    if not path.exists():
        raise MedbenchError(name, "the file does not exist", "give an existing path")
    try:
        with files.written(path), path.open("rb") as stream:
            text = stream.read(limits.CONFIG_CHARACTERS + 1).decode("utf-8")
        _check_events(text, name)
        data = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:  # of YAML's own types: a date without a month
        found = " ".join(str(error).split())[: limits.QUOTED]
        raise MedbenchError(name, f"not readable as YAML: {found}", "fix it") from None
    if not isinstance(data, dict):
        raise MedbenchError(name, f"holds {type(data).__name__}, not a mapping", "see config/config.yaml")
    _check_values(data, name)
    return data


def _check_events(text: str, name: str) -> None:
    """Raise MedbenchError for YAML that is nested too deeply or, its aliases written out, too large: before anything is made of it."""
    anchors, opened, sizes = [""], [0], dict[str, int]()  # of what is not closed yet: its anchor, its size so far; anchor -> size
    for event in yaml.parse(text, Loader=_UniqueKeys):
        anchor, size = getattr(event, "anchor", None) or "", limits.CONFIG_VALUE
        if isinstance(event, yaml.CollectionStartEvent):
            anchors.append(anchor)
            opened.append(size)
            _require_depth(len(opened) - 1, name)
            continue
        if isinstance(event, yaml.AliasEvent):
            if anchor in anchors:
                raise MedbenchError(name, f"its alias *{anchor} stands inside of what it stands for", "write it out")
            size = sizes.get(anchor, size)
        elif isinstance(event, yaml.ScalarEvent):
            size += len(event.value)
            sizes[anchor] = size
        elif isinstance(event, yaml.CollectionEndEvent):
            size = opened.pop()
            sizes[anchors.pop()] = size
        else:
            continue
        opened[-1] += size
        _require_size(opened[-1], name)


def _check_values(data: Mapping[Any, Any], name: str) -> None:
    """Raise MedbenchError for values that no configuration needs and that would end in a traceback or on the screen later."""
    waiting: list[tuple[Any, str, int]] = [(data, "", 0)]
    size = 0
    while waiting:
        value, key, depth = waiting.pop()
        size += limits.CONFIG_VALUE + (len(value) if isinstance(value, str) else 0)
        _require_size(size, name)
        _require_depth(depth, name)
        if isinstance(value, Mapping):
            waiting += [(one, key, depth + 1) for one in value]
            waiting += [(one, f"{key}.{str(word)[:40]}".strip("."), depth + 1) for word, one in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(one, key, depth + 1) for one in value]
        elif isinstance(value, str) and (wrong := _CONTROL.search(value)):
            raise MedbenchError(name, f"{key}: holds the control character {wrong[0]!r}", "remove it")
        elif isinstance(value, str) and (secret := addresses.credentials(value)):
            found = f"{key}: an address holds {secret}, and configurations are copied into results"
            raise MedbenchError(name, found, "write it as ${NAME}, and export NAME=<its value> where you start")
        elif isinstance(value, int) and value.bit_length() > limits.INTEGER_BITS:
            raise MedbenchError(name, f"{key}: a number of {value.bit_length()} bits", f"give one of at most {limits.INTEGER_BITS}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise MedbenchError(name, f"{key}: {value} is no finite number", "give one")
        elif not isinstance(value, str | int | float | None):
            raise MedbenchError(name, f"{key}: holds a {type(value).__name__}", "give text, a number, a list or a mapping; quote a date")


def _require_depth(depth: int, name: str) -> None:
    if depth > limits.CONFIG_DEPTH:
        raise MedbenchError(name, f"is nested more than {limits.CONFIG_DEPTH} levels deep", "write it flatter")


def _require_size(size: int, name: str) -> None:
    if size > limits.CONFIG_CHARACTERS:
        found = (
            f"holds more than {limits.CONFIG_CHARACTERS} characters, with its aliases written out and {limits.CONFIG_VALUE} for each value"
        )
        raise MedbenchError(name, found, "use fewer aliases, or several files")


def is_fetched(entry: Dataset) -> bool:
    """Whether the stage `fetch` brings a data set's files: it says where from, and no `raw_dir` that can be used stands above that."""
    unset = entry.raw_dir is None or not all(os.environ.get(name) for name in VARIABLE.findall(entry.raw_dir))
    return entry.source is not None and unset


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


class _ModeEntry(Strict):
    entry: Mode


class _UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's is five times as fast
    """Safe YAML that refuses duplicate keys. A key that stands over a merged one (`<<: *anchor`) is no duplicate."""

    def flatten_mapping(self, node: Any) -> None:
        """Called for every mapping before its merges are put in; for one that is merged elsewhere again afterwards."""
        if not hasattr(node, "checked"):
            node.checked = True
            merge = "tag:yaml.org,2002:merge"
            keys = ["<<" if key.tag == merge else self.construct_object(key, deep=True) for key, _ in node.value]
            seen = set()
            for key in keys:
                if key in seen:  # one that is no text, number or date is refused by its type here
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
                seen.add(key)
        super().flatten_mapping(node)


def _read(root: Path, places: Registries, kind: str) -> dict[str, tuple[str, Any]]:
    """Key -> file that says it, and its value: what comes with medbench, and over it what a file of one's own says."""
    shipped, own = Registries.model_fields[kind].default, getattr(places, kind)
    found = {key: (shipped, value) for key, value in read_yaml(root / shipped, shipped).items()}
    if own != shipped:
        found |= {key: (own, value) for key, value in read_yaml(registry_file(root, own), own).items()}
    return found


def registry_file(root: Path, name: str) -> Path:
    """Where the file of a registry lies: relative to the Snakefile, or else to the working directory; variables and `~` are expanded."""
    named = os.path.expanduser(os.path.expandvars(name))
    return place if (place := root / named).exists() else Path(named)


def _registry(root: Path, places: Registries, kind: str, word: str, schema: type[Any]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for slug, (name, value) in _read(root, places, kind).items():
        where = f"{name}: {word} {slug}"
        try:
            _slug(slug if isinstance(slug, str) else "")
        except ValueError:
            remedy = f"use lower-case letters, digits, dots and dashes, at most {limits.NAME}"
            raise MedbenchError(where[: limits.QUOTED], "invalid name", remedy) from None
        try:
            if schema is _ModeEntry:
                entries[slug] = _ModeEntry.model_validate({"entry": value}).entry
            else:
                entries[slug] = schema.model_validate(value)
        except ValidationError as error:
            raise one_line(where, error) from None
    return entries


def _asking(root: Path, places: Registries) -> Asking:
    try:
        return Asking.model_validate({key: value for key, (_, value) in _read(root, places, "templates").items()})
    except ValidationError as error:
        raise one_line(places.templates, error) from None


def _check_selection(config: Config, source: str) -> None:
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


def _check_modalities(config: Config) -> None:
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


def require_whole(files: Sequence[Path], also: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Raise MedbenchError for run files that leave to the demo what a run is: its report would be written over.

    `also`: keys that the command line gives.
    """
    files = [file for file in files if Path(file).stem != "now"]
    given = {**also, **{key: None for file in files for key in read_yaml(Path(file), str(file))}}
    needed = ("run", "models", "datasets", "modes")
    if files and (absent := [key for key in needed if key not in given]):
        found = f"says no {', '.join(absent)}, which would be those of the demo in config/config.yaml"
        raise MedbenchError(", ".join(map(str, files)), found, f"give {', '.join(needed)}, or name that file before it")


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


def one_line(where: str, error: ValidationError, remedy: str = "") -> MedbenchError:
    """The complaints of Pydantic as one line: how many, and the first five. `remedy`: for what is of neither this module nor a layout."""
    limit = limits.QUOTED if error.error_count() == 1 else limits.QUOTED // 4
    found = list(dict.fromkeys(_complaint(one, error.title, limit) for one in error.errors()))
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    said = f"{len(found)} mistakes: {'; '.join(found[:SHOWN])}{more}" if len(found) > 1 else found[0]
    return MedbenchError(where, said, remedy or f"see {'config/schema.json' if _keys(error.title) else 'docs/own-data.md'}")


def _complaint(one: Any, title: str, limit: int) -> str:
    """One mistake. `title`: the class that was wanted; `limit`: characters of a value."""
    key = ".".join(str(part) for part in one["loc"] if part not in ("entry", "zero-shot", "probe", "lora"))
    message = one["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list").replace("Tuple should", "List should")
    found = f"{key}: {message}" if key else message
    if one["type"] == "extra_forbidden":
        name = str(one["loc"][-1])
        known = [other for other in _keys(title if len(one["loc"]) == 1 else None) if other != name]  # of another class, it is no remedy
        near = difflib.get_close_matches(name, known, 1, 0.75)
        value = "" if addresses.SECRET_KEY.search(key) else f" (value {_short(one['input'], limit)})"
        return f"unknown key {key!r}{value}" + (f", did you mean {near[0]!r}?" if near else "")
    if one["type"] == "missing":
        return f"key {key!r} is missing"
    if one["loc"][-2:] == ("endpoint", "key"):  # it may be the key itself
        return found
    return f"{found} (found {_short(one['input'], limit)}{_quoting(one)})" if "input" in one and key else found


@cache
def _keys(kind: str | None) -> list[str]:
    """The keys of a class of this module, or of all of them; none of another module's."""
    kinds = [one for one in globals().values() if isinstance(one, type) and issubclass(one, Strict)]
    return sorted({key for one in kinds if kind in (None, one.__name__) for key in one.model_fields})


def _quoting(error: Any) -> str:
    """How to write what YAML did not take for the text that it looks like. Of a number the spelling is lost: 007 is 7, 010 is 8."""
    if not error["type"].startswith("string") or not isinstance(error["input"], bool | int | float | None):
        return ""
    spelt = {True: '"yes", "on" or "true"', False: '"no", "off" or "false"', None: '"null" or "none"'}
    value = error["input"]
    return f": quote it, as {spelt[value]}" if isinstance(value, bool | None) else ": quote it as it is written"


def _short(value: object, limit: int) -> str:
    return text if len(text := repr(value)) <= limit else f"{text[:limit]}..."


def schema() -> str:
    """JSON schema of registries and runs, for editors: `config/schema.json`."""
    parts: dict[str, type[Strict]] = {"run": Run, "model": Model, "dataset": Dataset, "mode": _ModeEntry, "templates": Asking}
    return json.dumps({name: part.model_json_schema() for name, part in parts.items()}, indent=1, sort_keys=True) + "\n"
