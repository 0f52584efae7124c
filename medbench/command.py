"""The configuration that a command is about: what verbs and stages read alike of the command line."""

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.errors import MedbenchError, choose

if TYPE_CHECKING:
    from medbench import config as configuration

TRACKED = False  # what is decided here reaches a job by its parameters
RESOLVED = "MEDBENCH_RESOLVED"  # variable by which the rules name the resolved configuration
ROOT = Path(__file__).parents[1]  # the clone: registries are found there from any working directory


def add_config_options(parser: argparse.ArgumentParser, run: bool = False) -> None:
    """`--configfile`, as Snakemake understands it; and for a verb about a `run`, its name in `config/` as the only argument."""
    if run:
        parser.add_argument("run", nargs="?", help="name of a run in config/; else that of --configfile")
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="laid over config/config.yaml; later files win")


def read_config(args: argparse.Namespace) -> "configuration.Config":
    """The configuration a verb was called with; under Snakemake the one that the start of the workflow resolved."""
    from medbench import config as configuration  # with Pydantic, as long as most jobs without a model take

    if resolved := os.environ.get(RESOLVED):
        return configuration.from_resolved(Path(resolved))
    named = [_file_of(args.run)] if getattr(args, "run", None) else []
    configuration.require_whole([*named, *args.configfile])
    from medbench.cells import with_left_out
    from medbench.datasets.layouts import with_test_only

    return with_left_out(with_test_only(configuration.from_files([ROOT / "config" / "config.yaml", *named, *args.configfile], ROOT)))


def _file_of(run: str) -> Path:
    """The run configuration of that name. Raises MedbenchError where there is none."""
    runs: dict[str, list[Path]] = {}
    for file in sorted(one for one in (ROOT / "config").glob("*.yaml") if one.is_file()):
        if named := re.search(r"""^run:\s*["']?([\w.-]+)""", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
            runs.setdefault(named[1], []).append(file)
    if len(found := runs.get(run, [])) != 1:
        said = f"{' and '.join(file.name for file in found) or 'no file'} in config/ has it"
        raise MedbenchError(f"run {run!r}", said, f"{choose(run, runs)}, or give --configfile FILE")
    return found[0]
