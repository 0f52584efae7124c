"""Cell, the grid, in-domain: which model meets which data set in which mode, and who may be compared with whom."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from medbench import paths
from medbench.errors import MedbenchError, choose

if TYPE_CHECKING:
    from medbench.config import Config, Model

TRACKED = False  # what is decided here reaches a job by its parameters


class Cell(NamedTuple):
    """Data set x model x mode: one target, `results/predictions/{dataset}/{model}/{mode}.parquet`."""

    dataset: str
    model: str
    mode: str

    def __str__(self) -> str:
        return "/".join(self)


class Candidate(NamedTuple):
    """A model as the gaps see it. `in_domain`: data sets whose modality was in its pretraining (never, for a generalist)."""

    model: str
    family: str
    role: str
    in_domain: frozenset[str]


def possible(config: "Config", cell: Cell) -> bool:
    """Whether the registries admit a cell: task fits the model's kind, and the model can run the mode."""
    from medbench import tasks
    from medbench.config import can_run

    model = config.models[cell.model]
    mode, task = config.modes[cell.mode], config.datasets[cell.dataset].task
    fits = answers(model, task) and can_run(model, cell.mode, mode) and (model.kind, mode.kind) in tasks.get(task).predicted_by
    fits = fits and (getattr(mode, "wording", "as-is") == "as-is" or tasks.get(task).rows == "choices")
    return fits and not (config.datasets[cell.dataset].test_only and is_trained(config, cell))


def is_trained(config: "Config", cell: Cell) -> bool:
    """Whether a cell that fits needs rows for training: all but a model off the shelf."""
    from medbench import tasks

    model, mode = config.models[cell.model], config.modes[cell.mode]
    return mode.kind != "zero-shot" or "train" in tasks.get(config.datasets[cell.dataset].task).predicted_by[model.kind, mode.kind].reads


def answers(model: "Model", task: str) -> bool:
    """Whether a model can do a task: by its kind, or by what its entry says."""
    from medbench import tasks

    return task in model.tasks if model.tasks is not None else model.kind in tasks.get(task).answered_by


def known(config: "Config", where: str, names: Mapping[str, str]) -> None:
    """Raise MedbenchError, said of `where`, for a `dataset`, `model` or `mode` of `names` that is in no registry; other keys have none."""
    for key, word in (("dataset", "data set"), ("model", "model"), ("mode", "mode")):
        if key in names and names[key] not in (entries := getattr(config, f"{key}s")):
            raise MedbenchError(where, f"{word} {names[key]!r} is in no registry", choose(names[key], entries))


def check(config: "Config", cell: Cell) -> None:
    """Raise MedbenchError naming the part of a cell that the registries lack or refuse."""
    from medbench.config import require_architecture, require_layout

    known(config, f"cell {cell}", cell._asdict())
    require_architecture(config, cell.model, f"cell {cell}", planned=True)
    require_layout(config, cell.dataset, f"cell {cell}")
    if not possible(config, cell):
        model, dataset = config.models[cell.model], config.datasets[cell.dataset]
        trainable = config._replace(datasets={**config.datasets, cell.dataset: dataset.model_copy(update={"test_only": False})})
        if possible(trainable, cell):
            raise MedbenchError(f"cell {cell}", "the data set has no row for training", "choose a mode off the shelf, or give it such rows")
        raise MedbenchError(
            f"cell {cell}", f"a {model.kind} model cannot run {cell.mode!r} on a {dataset.task} data set", "choose another mode or model"
        )


def with_left_out(config: "Config") -> "Config":
    """The configuration with the cells of the run that cannot be made, and why: model shut down, data set not to be sent there."""
    from medbench.config import licence, unsent
    from medbench.remote.endpoint import is_past
    from medbench.remote.store import size

    found = {}
    for cell in every(config):
        model = config.models[cell.model]
        if (host := unsent(config, cell.dataset, cell.model)) and not paths.predictions(*cell).exists():
            found[str(cell)] = f"its data set may not be sent to {host} (licence: {licence(config, cell.dataset)})"
            continue
        if model.retired_on is None or not is_past(str(model.retired_on)) or paths.predictions(*cell).exists():
            continue
        kept, note = size(model.architecture, model.checkpoint or ""), paths.gone(*cell)
        if kept == 0 or (note.exists() and note.read_text().strip() == str(kept)):
            how = "not all of its answers are" if kept else "none of its answers is"
            found[str(cell)] = f"{model.checkpoint} was shut down on {model.retired_on}, and {how} kept in {paths.store()}"
    return config._replace(left_out=found)


def grid(config: "Config") -> list[Cell]:
    """The run's cells in the order of its lists, baselines last, without those left out. Raises MedbenchError when a data set has none."""
    return [cell for cell in every(config) if str(cell) not in config.left_out]


def every(config: "Config") -> list[Cell]:
    """Those left out among them."""
    run, cells = config.run, []
    for dataset in run.datasets:
        chosen = [Cell(dataset, model, mode) for model in run.models for mode in run.modes]
        own = [cell for cell in chosen if possible(config, cell)]
        if not own:
            why = ", which has no row for training" if config.datasets[dataset].test_only else ""
            raise MedbenchError(
                f"run {run.run}", f"no model of the run can answer data set {dataset!r}{why}", "add a model or mode, or drop the data set"
            )
        cells += own + [cell for cell in baselines(config, dataset) if cell not in own]
    return cells


def baselines(config: "Config", dataset: str) -> list[Cell]:
    """What a data set is worth without a model: the cells of all baselines of its task, whether or not the run names them."""
    entries = {name: entry for name, entry in config.models.items() if entry.role == "baseline" and entry.modes}
    chosen = [Cell(dataset, name, mode) for name, entry in entries.items() for mode in entry.modes or ()]
    return [cell for cell in chosen if cell.mode in config.modes and possible(config, cell)]


def domain(config: "Config", model: str) -> tuple[str, ...]:
    """The run's data sets that are in-domain for a model and whose task it can do, in the order of the run."""
    names = config.run.datasets
    return tuple(name for name in names if answers(config.models[model], config.datasets[name].task) and is_in_domain(config, model, name))


def is_in_domain(config: "Config", model: str, dataset: str) -> bool:
    """True where the data set's modality is among a specialist's pretraining; every medical data set is out of domain for a generalist."""
    entry = config.models[model]
    return entry.role == "specialist" and config.datasets[dataset].modality in entry.pretrained_on


def candidates(config: "Config") -> list[Candidate]:
    """The run's models, baselines left out, as the gaps need them."""
    return [
        Candidate(name, entry.family, entry.role, frozenset(domain(config, name)))
        for name, entry in ((name, config.models[name]) for name in config.run.models)
        if entry.role != "baseline"
    ]
