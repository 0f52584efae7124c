"""What the report is told about a run: names, labels, who is in-domain where, settings. All else it reads from the run's files."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from medbench import cells, config
from medbench.cells import Cell
from medbench.jobs import digests

TEMPLATES = Path(__file__).parent / "templates"


class ModelFacts(NamedTuple):
    """A model as readers see it. `weights`: hub id or folder, or how the workflow made them; `revision`: pinned commit."""

    label: str
    family: str
    role: str
    weights: str
    revision: str | None
    licence: str | None
    in_domain: tuple[str, ...]
    same_as: str | None = None  # of a model behind a server: the same checkpoint here


class DatasetFacts(NamedTuple):
    """A data set as readers see it. `classes` is empty for questions and answers."""

    label: str
    task: str
    modality: str
    specialty: str
    classes: tuple[str, ...]
    licence: str | None
    note: str | None


class ModeFacts(NamedTuple):
    """A mode as readers see it, and the kind of its recipe."""

    label: str
    kind: str


class JudgeFacts(NamedTuple):
    """A judge as readers see it."""

    label: str
    family: str


class Params(NamedTuple):
    """Parameters of a report. `cells`: those the run expects; `templates`: digest of the page's texts."""

    cells: tuple[Cell, ...]
    models: dict[str, ModelFacts]
    datasets: dict[str, DatasetFacts]
    modes: dict[str, ModeFacts]
    statistics: dict[str, Any]
    seed: int
    templates: str
    left_out: Mapping[str, str] = MappingProxyType({})  # of these cells, those that cannot be made any more: why
    judges: dict[str, JudgeFacts] = {}  # noqa: RUF012  # of a NamedTuple, which nobody changes

    def facts(self, cell: Cell) -> dict[str, Any]:
        """What the report's tables say of a cell in front: names, labels, task, family, role, whether it is in-domain."""
        model, dataset = self.models[cell.model], self.datasets[cell.dataset]
        return {
            **cell._asdict(),
            "dataset_label": dataset.label,
            "model_label": model.label,
            "task": dataset.task,
            "family": model.family,
            "role": model.role,
            "in_domain": cell.dataset in model.in_domain,
        }

    def margin(self, metric: str) -> float:
        """Equivalence margin of a primary metric."""
        margin: float = self.statistics["margins"].get(metric, self.statistics["margin"])
        return margin

    def mode_label(self, mode: str) -> str:
        """A mode in words."""
        return self.modes[mode].label if mode in self.modes else mode


def collect(settings: config.Config) -> Params:
    """Pick what the report shows from a validated configuration; only models, data sets and modes that have a cell."""
    grid = tuple(cells.every(settings))
    used = tuple(dict.fromkeys(cell.model for cell in grid))
    return Params(
        grid,
        _distinct({name: _model(settings, name) for name in used}),
        _distinct({name: dataset(settings, name) for name in settings.run.datasets}),
        {
            name: ModeFacts(settings.modes[name].about.label or name, settings.modes[name].kind)
            for name in dict.fromkeys(cell.mode for cell in grid)
        },
        settings.run.statistics.model_dump(),
        settings.run.seed,
        digests.digest("".join(path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.iterdir()) if path.is_file())),
        dict(settings.left_out),
        {name: JudgeFacts(settings.models[name].about.label or name, settings.models[name].family) for name in settings.run.judges},
    )


F = TypeVar("F", ModelFacts, DatasetFacts)


def _distinct(entries: dict[str, F]) -> dict[str, F]:
    """Labels that two entries share get their name appended: readers and figures must tell them apart."""
    labels = [entry.label for entry in entries.values()]
    return {
        name: entry._replace(label=f"{entry.label} ({name})") if labels.count(entry.label) > 1 else entry for name, entry in entries.items()
    }


def _model(settings: config.Config, name: str) -> ModelFacts:
    entry = settings.models[name]
    weights = entry.checkpoint or ("pretrained by medbench" if entry.pretrain else "none")
    label, in_domain = entry.about.label or name, cells.domain(settings, name)
    return ModelFacts(label, entry.family, entry.role, weights, entry.revision, entry.about.licence, in_domain, entry.same_as)


def dataset(settings: config.Config, name: str) -> DatasetFacts:
    """What a report shows of one data set."""
    entry = settings.datasets[name]
    about = entry.about
    return DatasetFacts(about.label or name, entry.task, entry.modality, entry.specialty, entry.classes, about.licence, about.note)
