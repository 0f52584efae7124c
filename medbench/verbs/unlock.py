"""Clear Snakemake's locks where no Snakemake and no job works in this folder.

Example: python -m medbench unlock
"""

import argparse

from medbench.stages import STAGES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""


def execute(args: argparse.Namespace) -> None:
    """Do it."""
    from medbench.jobs import exclusive

    cleared = exclusive.unlock(STAGES)
    print(f"cleared {', '.join(map(str, cleared))}" if cleared else "nothing was locked")
