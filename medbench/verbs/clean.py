"""Remove what interrupted jobs left and no live process holds.

Example: python -m medbench clean --partial
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("--partial", action="store_true", required=True, help="unfinished work of long jobs")


def execute(args: argparse.Namespace) -> None:
    """Do it."""
    from medbench.jobs import partial

    removed = partial.clean()
    for folder, job, size in removed:
        print(f"removed {folder}: {job}, {size} bytes")
    print(f"removed {sum(one.size for one in removed)} bytes" if removed else "nothing to remove")
