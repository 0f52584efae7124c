"""Everything that a run needs from elsewhere, weights and data sets, before it starts: for clusters whose nodes have no network.

Sizes, licences and what is gated are said first. An interrupted download goes on where it stopped; every file is checked.
`fetch --all RUN` is the same.

Example: python -m medbench fetch --all open
"""

import argparse

from medbench.command import add_config_options, read_config
from medbench.supplies import fetch_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_config_options(parser, run=True)


def execute(args: argparse.Namespace) -> None:
    """Do it. Raises MedbenchError where something is missing."""
    config = read_config(args)
    fetch_all(config)
    print(f"run {config.run.run}: all is here; with `export HF_HUB_OFFLINE=1` nothing is asked of the network any more")
