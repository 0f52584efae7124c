"""What endpoints will cost. Closed models are asked over the network, and their answers are paid for by the token."""

from typing import NamedTuple

from medbench.cells import Cell
from medbench.config import Config

TRACKED = False  # a look ahead is no part of a result


class Price(NamedTuple):
    """Of one cell, with what it was worked out from."""

    cell: Cell
    dollars: float
    said: str


def of_cell(config: Config, cell: Cell) -> Price | None:
    """What the unfinished answers of a cell will cost; None for a model that nobody pays for, or whose price is not known.

    The one place where an estimate of a remote model's cost is added.
    """
    return None
