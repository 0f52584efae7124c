"""What a lab carries away of an adapted cell: a folder with its weights, an example that runs, and a model card.

Example: python -m medbench export-model ham10000/clip/lora exported
"""

import argparse

from medbench.cells import Cell
from medbench.command import ROOT, add_config_options, cell_names, output, read_config
from medbench.errors import MedbenchError
from medbench.export import cell as exported
from medbench.jobs import devices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("cell", help="DATASET/MODEL/MODE, or the path of its predictions or adapter")
    parser.add_argument("out", type=output, help="a new folder")
    parser.add_argument("--merged", action="store_true", help="whole weights in hub format instead of an adapter, to serve or to fine-tune")
    add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Do it. Raises MedbenchError for a cell that has nothing to carry away, or is not what its jobs wrote."""
    config, names = read_config(args), cell_names(args.cell)
    if len(names) != 3:
        raise MedbenchError(f"cell {args.cell}", "is no DATASET/MODEL/MODE", "write it like ham10000/clip/lora")
    cell = Cell(*names)
    exported.require(config, cell, args.merged)
    devices.claim(config.models[cell.model].gpus if args.merged else 0)
    exported.export(config, cell, args.out, args.merged, ROOT / "resources" / "export")
    print(f"{args.out}: {cell}{', merged' if args.merged else ''}; its README.md says what it is, `python {args.out}/example.py` uses it")
