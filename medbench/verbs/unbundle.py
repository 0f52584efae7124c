"""Unpack what `bundle` wrote, in a clone at a site without a network: every file is checked, and lies below bundles/RUN.

Example: python -m medbench unbundle open.tar
"""

import argparse

from medbench.command import again, given
from medbench.supplies import bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("tar", type=given, help="the tar that was carried")


def execute(args: argparse.Namespace) -> None:
    """Do it. Raises MedbenchError for a bundle that is cut off or damaged."""
    folder = bundle.unpack(args.tar)
    print(f"{folder}: every file is as it was packed. Now:\n  . {folder}/env.sh\n  {again(folder / 'run.yaml')}")
