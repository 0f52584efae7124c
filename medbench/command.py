"""The configuration that a command is about: what verbs and stages read alike of the command line."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medbench import config as configuration

TRACKED = False  # what is decided here reaches a job by its parameters
RESOLVED = "MEDBENCH_RESOLVED"  # variable by which the rules name the resolved configuration
ROOT = Path(__file__).parents[1]  # the clone: registries are found there from any working directory


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--configfile`, as Snakemake understands it."""
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="laid over config/config.yaml; later files win")


def read_config(args: argparse.Namespace) -> "configuration.Config":
    """The configuration a verb was called with; under Snakemake the one that the start of the workflow resolved."""
    from medbench import config as configuration  # with Pydantic, as long as most jobs without a model take

    if resolved := os.environ.get(RESOLVED):
        return configuration.from_resolved(Path(resolved))
    return configuration.from_files([ROOT / "config" / "config.yaml", *args.configfile], ROOT)
