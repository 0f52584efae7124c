"""What a run configuration may say: `config/config.yaml`, `config/nano.yaml` or any `--configfile`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medbench import tasks
from medbench.config.strict import Slug, Strict
from medbench.jobs import limits

TRACKED = False  # what is decided here reaches a job by its parameters


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

    At 4, 98.7% to 100% of the images of our real sets are found when encoded or sized anew, and 0 to 8% of unrelated images pair up.
    """

    threshold: int = Field(4, ge=0, le=16)
    in_leak_free: bool = False  # the leak-free subset leaves them out too, not only equal images


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
