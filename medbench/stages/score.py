"""Score every sample of a cell from its stored predictions: no model is asked again."""

import sys
from typing import TYPE_CHECKING, NamedTuple

from medbench import paths, tables, tasks
from medbench.jobs.stage import Needs, Stage
from medbench.tasks.reading import require_test

if TYPE_CHECKING:
    from medbench.config import Config


class Params(NamedTuple):
    """What changes the scores besides the predictions."""

    task: str
    thoughts: tuple[tuple[str, str], ...] = ()  # the model's marks of its thoughts, where the task asks


def params(config: "Config", dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell."""
    task = config.datasets[dataset].task
    return Params(task, config.models[model].thoughts if tasks.get(task).asked else ())


def run(params: Params, dataset: str, model: str, mode: str) -> None:
    """Write `scores/{dataset}/{model}/{mode}.parquet`."""
    task, path = tasks.get(params.task), paths.predictions(dataset, model, mode)
    frame = tables.read(task.predictions, path)
    require_test(frame, path, dataset, task.repeated)
    scored = task.score(frame, path, params.thoughts) if task.asked else task.score(frame, path)
    if scored.note:
        print(f"{path}: {scored.note}", file=sys.stderr)
    tables.write(task.scores, scored.table, paths.scores(dataset, model, mode))


STAGE = Stage(
    name="score",
    keys=("dataset", "model", "mode"),
    params=params,
    inputs=lambda params, *cell: [paths.samples(cell[0], "test"), paths.predictions(*cell)],
    outputs=lambda *cell: [paths.scores(*cell)],
    run=run,
    uses=lambda params: tasks.get(params.task).code("score", "predictions", "scores"),
    needs=lambda config, *names: Needs(memory_mb=1000, minutes=10),
    is_handed=True,
)
