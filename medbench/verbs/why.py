"""Why a cell is as it is: each job that leads to it, whether it is finished, and in words what would run again and for what reason.

Example: python -m medbench why nano-radiology/nano-clip/lp --configfile config/nano.yaml
"""

import argparse

from medbench import cells
from medbench.cells import Cell
from medbench.command import add_config_options, read_config
from medbench.errors import MedbenchError, visible
from medbench.jobs.console import duration
from medbench.schedule import jobs, of_cell, standings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("cell", help="DATASET/MODEL/MODE, or the path of its predictions")
    add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Print it. Raises MedbenchError for a cell that is not of the run."""
    config = read_config(args)
    parts = args.cell.removeprefix("results/predictions/").removesuffix(".parquet").strip("/").split("/")
    grid = cells.grid(config)
    if len(parts) != 3 or (cell := Cell(*parts)) not in grid:
        like = [str(one) for one in grid if set(parts) & set(one)] or [str(one) for one in grid]
        raise MedbenchError(f"cell {args.cell}", f"is not of run {config.run.run}", f"choose from {', '.join(like[:6])}, ...")
    ordered = jobs(config)
    found = standings(config, ordered)
    own = [found[place] for place in of_cell(ordered, cell)]
    again = [one for one in own if one.state not in ("finished", "deleted")]
    print(f"{cell}: " + (f"{len(again)} of {len(own)} jobs that lead to it are not finished" if again else "finished; nothing would run"))
    for one in own:
        took = f" ({duration(one.seconds)})" if one.seconds is not None else ""
        print(visible(f"  {one.state:<8}  {one.job}{took}{f': {one.why}' if one.why else ''}"))
