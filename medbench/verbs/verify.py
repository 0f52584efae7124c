"""Read every byte of a run's results, and name what is altered, stale, of other samples, or without a run record."""

import argparse
import sys
from collections.abc import Iterator

from medbench import cells, paths, stages, tables, tasks
from medbench.cells import Cell
from medbench.command import add_config_options, read_config
from medbench.config import Config
from medbench.errors import MedbenchError
from medbench.jobs import integrity
from medbench.jobs.integrity import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_config_options(parser, run=True)


def execute(args: argparse.Namespace) -> None:
    """A line for each finding. Raises MedbenchError where there is one; else nothing goes to standard output."""
    config = read_config(args)
    found = list(dict.fromkeys(findings(config)))
    for finding in found:
        print(f"{finding.kind.upper()}: {finding}")
    if found:
        remedy = "`snakemake` makes what is altered or stale again; delete what nobody knows, and run again"
        raise MedbenchError(f"run {config.run.run}", f"{len(found)} of its results are not what they should be", remedy)
    print(f"run {config.run.run}: every byte is what its job wrote", file=sys.stderr)


def findings(config: Config) -> Iterator[Finding]:
    """All that is wrong with what exists of a run: the files of each job, then what they say of each other."""
    grid = cells.grid(config)
    for stage, names in stages.jobs(config.run.run, [cell._asdict() for cell in grid]):
        outputs = stages.get(stage).outputs(*names)
        if any(file.exists() for file in (*outputs, paths.run_record(outputs[0]))):
            yield from stages.look(config, stage, names, exact=True).findings
    for dataset in config.run.datasets:
        yield from _official(dataset)
    for cell in grid:
        yield from _of_cell(config, cell)


def _official(dataset: str) -> Iterator[Finding]:
    """Fetched files, by the digests that `fetch` noted. One that is gone, like an archive once it is unpacked, is nothing."""
    from medbench.jobs import fetching

    for name, noted in (integrity.read(paths.fetched(dataset)) or {}).get("files", {}).items():
        path = paths.raw(dataset) / name
        if noted and path.is_file() and not fetching.matches(path, noted):
            yield Finding("altered", path, "is not the file that was fetched")


def _of_cell(config: Config, cell: Cell) -> Iterator[Finding]:
    """Its samples are those of the test split, and its weights those that passed."""
    from medbench.tasks.reading import require_test

    task = tasks.get(config.datasets[cell.dataset].task)
    for schema, path in ((task.predictions, paths.predictions(*cell)), (task.scores, paths.scores(*cell))):
        if path.exists():
            try:
                require_test(tables.read(schema, path), path, cell.dataset, task.repeated)
            except MedbenchError as error:
                yield Finding("altered", path, error.found)
    certificate, weights = paths.adapter_files(*cell)
    if certificate.exists():
        try:
            integrity.require_adapter(str(cell), certificate, weights)
        except MedbenchError as error:
            yield Finding("altered", certificate, error.found)
