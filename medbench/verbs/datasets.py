"""Every data set of the registry: access, licence, rows, whether it is fetched or prepared.

Example: python -m medbench datasets show vqa-rad
"""

import argparse

from medbench import command
from medbench.errors import MedbenchError
from medbench.verbs import listing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("show", nargs="*", metavar="DATASET", help="one of them, with its card and contact sheet")
    command.add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Do it."""
    settings = command.read_config(args)
    if not args.show:
        print(listing.datasets(settings).plain())
    elif len(words := args.show[1:] if args.show[0] == "show" else args.show) == 1:
        print(listing.show_dataset(settings, words[0]))
    else:
        raise MedbenchError("datasets", f"does not understand {' '.join(args.show)}", "write `datasets` or `datasets show NAME`")
