"""What the test samples without a duplicate in train or val say: how many there are, and the deciding metric on them beside all."""

from typing import Any, NamedTuple

from medbench.cells import Cell
from medbench.report.results import TASKS, Material, primary, primary_leak_free
from medbench.report.words import NOTHING, with_interval


class Count(NamedTuple):
    """Test samples of a data set, and those of them without a duplicate."""

    label: str
    test: int
    leak_free: int


class Line(NamedTuple):
    """The deciding metric of one cell on all test samples and on the leak-free ones, as text; where it is null, why."""

    label: str
    model: str
    mode: str
    metric: str
    everything: str
    leak_free: str
    n: str


def counts(material: Material) -> list[Count]:
    """One a data set, in the order of the run."""
    return [Count(material.params.datasets[name].label, *found) for name, found in material.leak_free.items()]


def lines(material: Material) -> list[Line]:
    """Cells of the data sets in which any test sample has a duplicate, in the order of the run."""
    with_duplicates = {name for name, found in material.leak_free.items() if found.leak_free < found.test}
    found = []
    for task, chosen in TASKS.items():
        leak_free = {_cell(row): row for row in primary_leak_free(material, task).to_dicts()}
        for row in primary(material, task).to_dicts():
            if row["dataset"] in with_duplicates and (other := leak_free.get(_cell(row))):
                sizes = f"{row['n']:,} and {other['n']:,}"
                names = row["dataset_label"], row["model_label"], material.params.mode_label(row["mode"]), chosen.title
                found.append(Line(*names, _value(row), _value(other), sizes))
    return found


def _cell(row: dict[str, Any]) -> Cell:
    return Cell(row["dataset"], row["model"], row["mode"])


def _value(row: dict[str, Any]) -> str:
    if row["estimate"] is None:
        return f"{NOTHING} ({row['reason']})"
    return with_interval(row["estimate"], row["low"], row["high"])
