"""Read every byte of a run's results, and name what is altered, stale, of other samples, missing, or without a run record.

Example: python -m medbench verify nano
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from medbench import cells, paths, stages, tables, tasks
from medbench.cells import Cell
from medbench.command import add_config_options, read_config
from medbench.config import Config
from medbench.errors import MedbenchError
from medbench.jobs import integrity
from medbench.jobs.integrity import Finding
from medbench.report.words import counted
from medbench.tasks.reading import require_test


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_config_options(parser, run=True)


def execute(args: argparse.Namespace) -> None:
    """A line for each finding. Raises MedbenchError where there is one; else nothing goes to standard output."""
    config = read_config(args)
    grid, run = cells.grid(config), f"run {config.run.run}"
    jobs = [job for job in stages.jobs(config, [cell._asdict() for cell in grid]) if _has_left(*job)]
    if not jobs:
        raise MedbenchError(run, f"has no results in {Path.cwd()}", "go to the folder where it ran")
    found = list(dict.fromkeys(findings(config, grid, jobs)))
    for finding in found:
        print(f"{finding.kind.upper()}: {finding}")
    wanted = {paths.predictions(*cell) for cell in grid}  # whoever needs room may delete embeddings, say
    if wrong := [one for one in found if one.kind != "missing" or one.path in wanted]:
        remedy = "`snakemake` makes again what is altered or stale and leads to the report; ask for others by their path, or delete them"
        raise MedbenchError(run, f"{len(wrong)} files are not what they should be", remedy)
    but = f", but for {counted(len(found), 'missing file')}" if found else ""
    print(f"{run}: what {len(jobs)} jobs wrote is there byte by byte{but}", file=sys.stderr)


def _has_left(stage: str, names: tuple[str, ...]) -> bool:
    outputs = stages.get(stage).outputs(*names)
    return any(file.exists() for file in (*outputs, paths.run_record(outputs[0])))


def findings(config: Config, grid: list[Cell], jobs: list[tuple[str, tuple[str, ...]]]) -> Iterator[Finding]:
    """All that is wrong with what exists of a run: the files of each job, then what they say of each other."""
    stale = set[Path]()
    for stage, names in jobs:
        try:
            found = stages.look(config, stage, names, exact=True).findings
        except MedbenchError:  # left over from an entry that was another one, or its official files are gone
            found = tuple(integrity.inspect(stages.get(stage).outputs(*names), None, exact=True))
        stale |= {one.path for one in found if one.kind == "stale"}
        yield from found
    for dataset in config.run.datasets:
        yield from _official(dataset)
        test = paths.samples(dataset, "test")
        if not test.is_file():
            continue
        try:
            tables.read(tasks.get(config.datasets[dataset].task).samples, test)
        except MedbenchError as error:
            yield Finding("altered", test, error.found)
            continue
        for cell in (one for one in grid if one.dataset == dataset):
            yield from _of_cell(config, cell, stale)


def _official(dataset: str) -> Iterator[Finding]:
    """Fetched files, by the digests that `fetch` noted. One that is gone, like an archive once it is unpacked, is nothing."""
    from medbench.jobs import fetching

    noted = (integrity.read(paths.fetched(dataset)) or {}).get("files")
    for name, checksum in noted.items() if isinstance(noted, dict) else ():
        path = paths.raw(dataset) / name
        try:
            if checksum and path.is_file() and not fetching.matches(path, str(checksum)):
                yield Finding("altered", path, "is not the file that was fetched")
        except ValueError:  # of an algorithm that is none
            yield Finding("altered", paths.fetched(dataset), f"notes {str(checksum)[:80]!r} for {name}, which is no digest")


def _of_cell(config: Config, cell: Cell, stale: set[Path]) -> Iterator[Finding]:
    """Its samples are those of the test split, and its weights those that passed. A stale table is of an older split, maybe."""
    task = tasks.get(config.datasets[cell.dataset].task)
    for schema, path in ((task.predictions, paths.predictions(*cell)), (task.scores, paths.scores(*cell))):
        if path.is_file() and path not in stale:
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
