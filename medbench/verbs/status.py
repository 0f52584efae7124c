"""How far a run is: what is finished, runs, waits, failed with its last error, is stale and why, and about how long the rest takes.

Example: python -m medbench status nano
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence

from medbench.command import add_config_options, read_config
from medbench.errors import visible
from medbench.jobs.console import duration
from medbench.schedule import STATES, Standing, jobs, seconds_left, standings

SHOWN = 10
"""Jobs of a state; more of them are counted, and `--all` shows them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_config_options(parser, run=True)
    parser.add_argument("--all", action="store_true", help="every job that is not finished, not only the first of each state")
    parser.add_argument("--json", action="store_true", help="every job of the run as one object a line")


def execute(args: argparse.Namespace) -> None:
    """Print it. Nothing is written, so it may be asked beside a running start."""
    config = read_config(args)
    found = standings(config, jobs(config))
    if args.json:
        for one in found:
            job = one.job
            facts = {"stage": job.stage, "names": job.names, "state": one.state, "why": one.why, "seconds": one.seconds}
            print(json.dumps({**facts, "output": str(job.outputs[0]), "log": str(job.log)}, ensure_ascii=False))
        return
    for line in text(config.run.run, found, None if args.all else SHOWN):
        print(visible(line))
    sys.stdout.flush()


def text(run: str, found: list[Standing], most: int | None) -> list[str]:
    """The page as lines: one for the run, a table by stage, then what is not finished."""
    counts = Counter(one.state for one in found)
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    left = seconds_left(found)
    n_open = sum(counts[state] for state in ("running", "waiting", "failed", "stale"))
    rest = f"; about {duration(left)} of work is left, if one job runs after another" if n_open and left is not None else ""
    return [f"run {run}: {len(found)} jobs: {said}{rest}", "", *_table(found), *notable(found, most)]


def notable(found: list[Standing], most: int | None, states: Sequence[str] = STATES[1:]) -> list[str]:
    """The jobs in some states with their reasons, `most` of each."""
    lines = []
    for state in states:
        own = [one for one in found if one.state == state]
        lines += ["", f"{state}:"] if own else []
        lines += [f"  {_line(one)}" for one in own[:most]]
        lines += [f"  and {len(own) - most} more (`status --all`)"] if most is not None and len(own) > most else []
    return lines


def _line(one: Standing) -> str:
    """`adapt data/model/lora (18 s): epoch 2 of 6`."""
    took = f" ({duration(one.seconds)})" if one.state == "running" and one.seconds is not None else ""
    log = f" (log: {one.job.log})" if one.state == "failed" else ""
    return f"{one.job}{took}{f': {one.why}' if one.why else ''}{log}"


def _table(found: list[Standing]) -> list[str]:
    """How many jobs of each stage are in each state."""
    shown = [state for state in STATES if any(one.state == state for one in found)]
    rows = [["stage", *shown]]
    for stage in dict.fromkeys(one.job.stage for one in found):
        counts = Counter(one.state for one in found if one.job.stage == stage)
        rows.append([stage, *(str(counts[state] or "") for state in shown)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
