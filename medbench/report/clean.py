"""What the test samples without a twin in train or val say: how many there are, and the deciding metric on them beside all."""

from typing import Any, NamedTuple

from medbench.cells import Cell
from medbench.report.results import TASKS, Material, primary, primary_clean
from medbench.report.words import NOTHING, interval, mode_name, number


class Count(NamedTuple):
    """Test samples of a data set, and those of them without a twin."""

    label: str
    test: int
    clean: int


class Line(NamedTuple):
    """The deciding metric of one cell on all test samples and on the clean ones, as text; where it is null, why."""

    label: str
    model: str
    mode: str
    metric: str
    everything: str
    clean: str
    n: str


def counts(material: Material) -> list[Count]:
    """One a data set, in the order of the run."""
    return [Count(material.params.datasets[name].label, *found) for name, found in material.clean.items()]


def lines(material: Material) -> list[Line]:
    """Cells of the data sets in which any test sample has a twin, in the order of the run."""
    with_twins = {name for name, found in material.clean.items() if found.clean < found.test}
    found = []
    for task, chosen in TASKS.items():
        clean = {_cell(row): row for row in primary_clean(material, task).to_dicts()}
        for row in primary(material, task).to_dicts():
            if row["dataset"] in with_twins and (other := clean.get(_cell(row))):
                sizes = f"{row['n']:,} and {other['n']:,}"
                names = row["dataset_label"], row["model_label"], mode_name(row["mode"]), chosen.title
                found.append(Line(*names, _value(row), _value(other), sizes))
    return found


def _cell(row: dict[str, Any]) -> Cell:
    return Cell(row["dataset"], row["model"], row["mode"])


def _value(row: dict[str, Any]) -> str:
    if row["estimate"] is None:
        return f"{NOTHING} ({row['reason']})"
    return f"{number(row['estimate'])} {interval(row['low'], row['high'])}".strip()
