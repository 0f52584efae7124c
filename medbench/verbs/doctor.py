"""Whether this machine, a run, a data set or a model is fit, one line each, with what to do; exit code 1 where there is a fault.

Example: python -m medbench doctor
Example: python -m medbench doctor llava-med
"""

import argparse
import difflib
import sys
from collections.abc import Iterator

from medbench import doctor
from medbench.command import ROOT, add_config_options, is_file, read_config, runs
from medbench.config import Config, sources
from medbench.doctor import Line, dataset, machine, weights
from medbench.errors import MedbenchError, visible
from medbench.jobs import devices

NEEDS_GPU = 5e8
"""Parameters of a model of which a run on a CPU takes days."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("name", nargs="?", help="a model (its first contact), a data set, or a run (name or file); default: this machine")
    add_config_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Print a line as soon as it is known."""
    faults = 0
    for line in _lines(args):
        print(visible(str(line)), flush=True)
        faults += line.state == doctor.FAULT
    if faults:
        print(f"{faults} fault{'' if faults == 1 else 's'}", file=sys.stderr)
    return int(faults > 0)


def _lines(args: argparse.Namespace) -> Iterator[Line]:
    args.run = None
    config = read_config(args)
    if args.name in config.models:
        entry = config.models[args.name]
        devices.claim(0 if entry.checkpoint is None or entry.kind == "remote" else entry.gpus)
        from medbench.doctor import contact  # with torch, which sees the claimed devices

        yield from contact.look(config, args.name, ROOT / "config" / "contacts.yaml")
        return
    if args.name in config.datasets:
        yield from dataset.look(config, args.name)
        return
    if args.name is not None:
        if args.name not in runs() and not is_file(args.name):
            near = difflib.get_close_matches(args.name, [*config.models, *config.datasets, *runs()], 1, 0.6)
            remedy = f"{f'did you mean {near[0]}? ' if near else ''}`python -m medbench models` and `datasets` list the names; runs: "
            raise MedbenchError(args.name, "is no model, no data set and no run in config/", remedy + ", ".join(runs()))
        args.run = args.name
        config = read_config(args)
    yield from machine.look(ROOT, any((config.models[one].about.parameters or 0) > NEEDS_GPU for one in sources.models(config)))
    yield from _run(config, with_data=args.name is not None or bool(args.configfile))


def _run(config: Config, with_data: bool) -> Iterator[Line]:
    """Models of a run with its judges, and its data sets where one was named."""
    for name in sources.models(config):
        yield weights.look(config, name)
    for name in config.run.datasets if with_data else ():
        for line in dataset.look(config, name):
            yield line._replace(subject=f"data set {name}, {line.subject}" if not line.subject.startswith("data set") else line.subject)
