"""What `config/modes.yaml` may say: modes, which are named recipes."""

from typing import Annotated, Literal

from pydantic import Field

from medbench.config.strict import Strict

TRACKED = False  # what is decided here reaches a job by its parameters


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


class ModeEntry(Strict):
    entry: Mode


def recipe_kind(mode: ZeroShot | Probe | Lora) -> str:
    """What a recipe does, by which tasks choose a method: zero-shot, probe, published-probe, few-shot or lora."""
    if isinstance(mode, Probe) and mode.labels is not None:
        return "few-shot"
    return "published-probe" if isinstance(mode, Probe) and mode.solver == "published" else mode.kind
