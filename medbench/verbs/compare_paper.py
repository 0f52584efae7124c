"""The finished cells beside the study's published figures, its questions recomputed, and the companion study's contradictions.

Example: python -m medbench compare-paper
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""


def execute(args: argparse.Namespace) -> None:
    """Do it."""
    from medbench.analysis import companion, paper

    paper.command()
    companion.command()
