"""Why a cell or a file is as it is: what made it, whether it is up to date and why not, or why it is absent and how to make it.

Example: python -m medbench why nano-radiology/nano-clip/lp --configfile config/nano.yaml
"""

import argparse
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medbench import cells, paths, stages
from medbench.cells import Cell
from medbench.command import add_config_options, config_files, read_config
from medbench.config import Config
from medbench.errors import MedbenchError, visible
from medbench.jobs import integrity
from medbench.jobs.console import duration
from medbench.schedule import Standing, jobs, leading, standings

Key = tuple[str, tuple[str, ...]]  # stage and names of a job
SHOWN = 12
"""Leading jobs; of more, the finished ones are counted."""
_FEW = 3  # tables, weights and other files in a list
_SHORT = 12  # of a digest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("what", help="DATASET/MODEL/MODE, or the path of a file of results/ or logs/")
    parser.add_argument("--run", help="name of the run in config/ or of a try, or its file; else that of --configfile")
    add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Print it. Raises MedbenchError for what no job makes."""
    config = read_config(args)
    target, wanted = _wanted(config, args.what)
    if not target.exists() and (reason := config.left_out.get("/".join(wanted[0][1]))):
        print(visible(f"{target}: absent: its cell is left out of the run, since {reason}"))
        return
    ordered = jobs(config, *wanted)
    found = standings(config, ordered)
    chosen = [place for place, job in enumerate(ordered) if (job.stage, job.names) in wanted]
    own = [found[place] for place in leading(ordered, chosen)]
    made = next(found[place] for place in chosen if (ordered[place].stage, ordered[place].names) == wanted[0])
    for line in text(target, made, own, _command(args, made.job.outputs[0])):
        print(visible(line))


def _wanted(config: Config, what: str) -> tuple[Path, list[Key]]:
    """The file that is asked about, and the jobs that it is about, the one that makes it first."""
    parts = what.strip("/").split("/")
    if len(parts) == 3 and "." not in parts[0] and parts[0] != paths.RESULTS.name and parts[0] != "logs":
        cell = Cell(*parts)
        try:
            cells.check(config, cell)
        except MedbenchError as error:
            grid = cells.grid(config)
            like = [str(one) for one in grid if set(parts) & set(one)] or [str(one) for one in grid]
            raise MedbenchError(f"cell {what}", error.found, f"choose from {', '.join(like[:6])}, ...") from None
        return paths.predictions(*cell), [("predict", tuple(cell)), ("interval", tuple(cell))]
    file = Path(what)
    file = file.absolute().relative_to(Path.cwd()) if file.is_absolute() and file.is_relative_to(Path.cwd()) else Path(*file.parts)
    for job in jobs(config):
        wanted: list[Key] = [(job.stage, job.names), *([("interval", job.names)] if job.stage == "predict" else [])]
        if any(file == output or file.is_relative_to(output) for output in job.outputs):
            return file, wanted
        if file in (job.log, paths.run_record(job.outputs[0])):
            return job.outputs[0], wanted
    return file, [_named(config, file)]


def _named(config: Config, file: Path) -> Key:
    """The job of a file that is not of the run, by the record beside it or by its name."""
    stage, names = "", tuple[str, ...]()
    if file.parts[:1] == (paths.RESULTS.name,) and len(file.parts) > 2:
        try:
            record = integrity.read(paths.record_of(file)) or {}
        except TypeError:  # a folder above what a job makes
            record = {}
        stage, names = str(record.get("stage", "")), tuple(map(str, record.get("names", ())))
        stage, names = (stage, names) if stage in stages.STAGES else _by_name(file)
    if not stage:
        raise MedbenchError(file, "is made by no job", "give DATASET/MODEL/MODE, or a file below results/ or logs/")
    cells.known(config, file.as_posix(), dict(zip(stages.get(stage).keys, names, strict=True)))
    if stages.get(stage).keys == Cell._fields:
        cells.check(config, Cell(*names))
    return stage, names


def _by_name(file: Path) -> Key:
    """The job whose outputs hold such a path."""
    for stage in map(stages.get, stages.STAGES):
        *folders, last = file.parts[2 : 2 + len(stage.keys)]
        names = (*folders, last.removesuffix(".parquet").removesuffix(".json"))
        if len(names) == len(stage.keys) and any(file == output or file.is_relative_to(output) for output in stage.outputs(*names)):
            return stage.name, names
    return "", ()


def text(target: Path, made: Standing, own: list[Standing], command: str) -> list[str]:
    """The page as lines. `made`: the job that makes it; `own`: it and all that lead to it; `command`: what makes it again."""
    again = [one for one in own if one.state not in ("finished", "deleted")]
    if not target.exists():
        state = f"absent: {made.state}{f', {made.why}' if made.why else ''}"
    else:
        state = f"{len(again)} of {len(own)} jobs that lead to it are not finished" if again else "finished; nothing would run"
    lines = [f"{target}: {state}", *(f"  {line}" for line in _provenance(made, own))]
    if again or not target.exists():
        lines.append(f"  to make it  {command}")
    lines.append("jobs that lead to it:")
    shown = own if len(own) <= SHOWN else [one for one in own if one.state != "finished" or one is made]
    if len(shown) < len(own):
        lines.append(f"  finished  {len(own) - len(shown)} others")
    for one in shown:
        took = f" ({duration(one.seconds)})" if one.seconds is not None else ""
        log = f" (log: {one.job.log})" if one.state == "failed" else ""
        lines.append(f"  {one.state:<8}  {one.job}{took}{f': {one.why}' if one.why else ''}{log}")
    return lines


def _provenance(made: Standing, own: list[Standing]) -> Iterator[str]:
    """What the run records say: command, weights, seeds, samples."""
    record = _record(made)
    if record is None:
        return
    where = ", ".join(str(record[key]) for key in ("started", "host", "device") if record.get(key))
    yield f"made by     {record.get('command')} ({where}, {duration(float(record.get('seconds', 0)))})"
    records = [found for one in own if (found := _record(one))]
    weights = dict.fromkeys(f"{name} {value}" for one in records for name, value in (one.get("weights") or {}).items())
    if weights:
        yield f"weights     {_first(list(weights))}"
    seeds: dict[Any, list[str]] = {}
    for one in records:
        seed = (one.get("params") or {}).get("params", {}).get("seed")
        if seed is not None:
            seeds.setdefault(seed, []).append(str(one["stage"]))
    if seeds:
        said = [f"{seed} ({', '.join(dict.fromkeys(names))})" for seed, names in seeds.items()]
        yield f"seed        {', '.join(said)}"
    read = {name: digest for name, digest in record.get("inputs", {}).items() if name.startswith(f"{paths.RESULTS}/")}
    tables = {name: digest for name, digest in read.items() if name.startswith(f"{paths.RESULTS}/data/") and name.endswith(".parquet")}
    splits = [name for name in tables if Path(name).stem in paths.SPLITS]
    for name in splits[:_FEW]:
        rows = _rows(Path(name))
        yield f"samples     {name}{f', {rows:,} rows' if rows is not None else ''}, sha256 {tables[name][:_SHORT]}"
    if len(splits) > _FEW:
        yield f"            and {len(splits) - _FEW} more tables of samples"
    if others := [f"{name} {digest[:_SHORT]}" for name, digest in read.items() if name not in splits]:
        yield f"read        {_first(others)}"


def _first(found: list[str]) -> str:
    return ", ".join(found[:_FEW]) + (f" and {len(found) - _FEW} more" if len(found) > _FEW else "")


def _record(one: Standing) -> dict[str, Any] | None:
    return integrity.read(paths.run_record(one.job.outputs[0]))


def _rows(table: Path) -> int | None:
    import polars as pl

    try:
        return int(pl.scan_parquet(table).select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError):
        return None


def _command(args: argparse.Namespace, target: Path) -> str:
    files = [os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file) for file in config_files(args)]
    return shlex.join(["snakemake", "--cores", "all", str(target), *(["--configfile", *files] if files else [])])
