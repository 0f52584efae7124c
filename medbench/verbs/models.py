"""Every model of the registry: role, family, pretraining, licence, gated, size; or one of them.

Example: python -m medbench models biomedclip
"""

import argparse

from medbench import command
from medbench.verbs import listing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "name", nargs="?", metavar="MODEL", help="one of them: its parts, its pins, and where it differs from what its authors ran"
    )
    command.add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Do it."""
    settings = command.read_config(args)
    print(listing.show_model(settings, args.name) if args.name else listing.models(settings).plain())
