"""What a run will take, before it starts: jobs, downloads, disk, GPU memory, time, and what it will be able to say. Nothing is fetched.

Example: python -m medbench plan paper --no-probe
Example: python -m medbench plan my-run.yaml --json
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from medbench import cells, stages
from medbench.command import add_config_options, cores, read_config
from medbench.config import Config
from medbench.errors import visible
from medbench.jobs import devices
from medbench.jobs.console import duration
from medbench.planning import downloads, effort, memory, prices, probe, sizes, verdicts
from medbench.schedule import OPEN, Standing, jobs, standings
from medbench.verbs.status import SHOWN, notable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_config_options(parser, run=True)
    parser.add_argument("--cores", default="all", metavar="N", help="as Snakemake will get; default: all")
    parser.add_argument(
        "--no-probe", action="store_true", help=f"time by finished jobs alone; the probe takes {probe.LONGEST:.0f} s at most"
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON document")


class Plan(NamedTuple):
    """All that is said. `efforts`: of the jobs to do."""

    run: str
    n_cells: int
    n_finished_cells: int
    found: list[Standing]
    wanted: list[downloads.Wanted]
    has_token: bool
    disks: list[downloads.Disk]
    memory: list[memory.Memory]
    gpus: list[int | None]
    cores: int
    is_probed: bool
    speed: probe.Speed | None
    efforts: list[effort.Effort]
    total: effort.Total
    prices: list[prices.Estimate]
    without_file: list[str]
    left_out: dict[str, str]  # cell -> why it cannot be made
    outlooks: list[verdicts.Outlook]
    unasked: list[str]


def execute(args: argparse.Namespace) -> None:
    """Print it. Raises MedbenchError for a number of cores that is none."""
    plan = look(read_config(args), cores(args.cores), not args.no_probe)
    if args.json:
        print(json.dumps(as_json(plan), ensure_ascii=False, indent=1))
    else:
        for line in text(plan):
            print(visible(line))
    sys.stdout.flush()


def look(config: Config, cores: int, is_probed: bool) -> Plan:
    """Everything, by what lies on this disk and a probe."""
    grid, found, gpus = cells.grid(config), standings(config, jobs(config)), devices.memory_mb()
    todo = [one.job for one in found if one.state in OPEN]
    speed = probe.measure(cores) if is_probed and todo else None
    estimator = effort.Estimator(config, speed, len(gpus))
    efforts = [estimator.of(job.stage, job.names) for job in todo]
    wanted = downloads.wanted(config)
    sized = [(job, estimator.size(job.names[0]) if "dataset" in stages.get(job.stage).keys else None) for job in todo]
    results = sum(sizes.written(config, job.stage, job.names, size) for job, size in sized)
    done = {one.job.names for one in found if one.job.stage == "interval" and one.state == "finished"}
    unfinished = [cell for cell in grid if tuple(cell) not in done]
    return Plan(
        run=config.run.run,
        n_cells=len(grid),
        n_finished_cells=len(grid) - len(unfinished),
        found=found,
        wanted=wanted,
        has_token=downloads.has_token(),
        disks=downloads.disks(config, wanted, results),
        memory=memory.of_models(config, grid, estimator.records, gpus),
        gpus=gpus,
        cores=cores,
        is_probed=is_probed,
        speed=speed,
        efforts=efforts,
        total=estimator.total(efforts, cores),
        prices=prices.estimates(config, unfinished),
        without_file=[name for name in config.run.models if not config.models[name].has_file],
        left_out=dict(config.left_out),
        outlooks=verdicts.outlooks(config, estimator.size),
        unasked=verdicts.unasked(config),
    )


def text(plan: Plan) -> list[str]:
    """The page as lines."""
    finished = sum(one.state == "finished" for one in plan.found)
    lines = [
        f"run {plan.run}: {plan.n_cells} cells, {len(plan.found)} jobs, of which {len(plan.efforts)} are to do and {finished} are finished",
        "",
        *_stages(plan),
        *notable(plan.found, SHOWN, ("running", "failed", "stale", "deleted")),
        "",
        *_downloads(plan),
        *_room(plan),
        "",
        *_time(plan),
    ]
    lines += _prices(plan)
    lines += [f"NOT READY: {name}: its architecture has no file yet, its cells will fail" for name in plan.without_file]
    lines += [f"LEFT OUT: {cell}: {why}" for cell, why in plan.left_out.items()]
    return [*lines, "", *_verdicts(plan)]


def brief(plan: Plan) -> list[str]:
    """What a run costs, in a few lines: jobs, downloads, time, and a disk or a GPU that is too small."""
    small = [f"{one.model} does NOT fit the GPU here" for one in plan.memory if one.fits is False]
    short = [line for line in _room(plan) if line.endswith("TOO LITTLE")]
    return [f"{plan.n_cells} cells, {len(plan.efforts)} jobs to do", *_downloads(plan), *_time(plan)[:1], *_prices(plan), *short, *small]


def _stages(plan: Plan) -> list[str]:
    """Jobs and time of each stage."""
    rows = [["stage", "to do", "finished", "time here", "GPU hours"]]
    for stage in dict.fromkeys(one.job.stage for one in plan.found):
        own = [one for one in plan.efforts if one.stage == stage]
        finished = sum(one.job.stage == stage and one.state == "finished" for one in plan.found)
        known = [one.seconds for one in own if one.seconds is not None]
        took = "" if stage == "fetch" or not own else duration(sum(known)) if known else "not known"
        took += f" and {len(own) - len(known)} not known" if known and len(known) < len(own) else ""
        gpu = sum(one.gpu_seconds for one in own) / 3600
        rows.append([stage, str(len(own) or ""), str(finished or ""), took, _hours(gpu) if gpu else ""])
    return columns(rows)


def _downloads(plan: Plan) -> list[str]:
    todo = [one for one in plan.wanted if one.state != downloads.HERE]
    here = Counter(one.kind for one in plan.wanted if one.state == downloads.HERE)
    have = " and ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in here.items())
    lines = [f"downloads: {len(todo) or 'none'}" + (f"; {have} here already" if have else "")]
    rows = [[one.kind, one.name, size(one.bytes, one.sized), one.licence, one.access, one.state] for one in todo]
    lines += [f"  {line}" for line in columns(rows)] if rows else []
    lines += [f"  {one.name}: {one.place}" for one in todo if one.state == downloads.APPLY]
    gated = [one.name for one in todo if one.access == "gated"]
    if todo:
        token = "a token of the hub is at hand" if plan.has_token else "no token of the hub is at hand (`hf auth login`, or HF_TOKEN)"
        lines.append(f"  {token}" + (f"; gated, so their licences must be accepted on their pages: {', '.join(gated)}" if gated else ""))
    return lines


def _room(plan: Plan) -> list[str]:
    lines = []
    for one in plan.disks:
        more = f", and {', '.join(one.unknown)}, whose size is not known" if one.unknown else ""
        short = ": TOO LITTLE" if one.needed > one.free else ""
        lines.append(f"disk of {one.folder}: about {size(one.needed)} needed{more}; {size(one.free)} free{short}")
    if not plan.memory:
        return [*lines, "GPU memory: no model of the run needs a GPU"]
    seen = ", ".join("a part of one" if one is None else size(one * 2**20) for one in plan.gpus)
    lines.append(f"GPU memory, for one sample at a time: {f'visible: {seen}' if seen else 'no GPU is visible'}")
    rows = [["model", "GPUs", "to ask each", "LoRA each", "by", "fits"]]
    for need in plan.memory:
        fits = "" if need.fits is None else "yes" if need.fits else "NO"
        amounts = [size(need.asked * 1e6) if need.asked else "not known", size(need.adapted * 1e6) if need.adapted else ""]
        rows.append([need.model, str(need.gpus), *amounts, need.source, fits])
    return [*lines, *(f"  {line}" for line in columns(rows))]


def _time(plan: Plan) -> list[str]:
    total, speed = plan.total, plan.speed
    if not plan.efforts:
        return ["time: nothing is to do"]
    if not speed and total.n_unknown == len(plan.efforts) - total.n_downloads:
        return [
            (
                f"time: not known: this machine is so busy that the probe measured nothing in {probe.LONGEST:.0f} s"
                if plan.is_probed
                else "time: not known without a probe, or finished jobs of the same stages and models"
            )
            + (f"; a rule of thumb for GPUs of a data centre says {_hours(total.gpu_hours)} hours of a GPU" if total.gpu_hours else "")
        ]
    by = Counter(one.source for one in plan.efforts if one.stage != "fetch")
    words = {
        "records": "by finished jobs of their stage and model",
        "probe": "by the probe",
        "rule": "by a rule of thumb for GPUs of a data centre",
        "unknown": "not known",
    }
    known = ", ".join(f"{by[source]} jobs {said}" for source, said in words.items() if by[source])
    lines = [
        f"time: about {duration(total.seconds)} on {plan.cores} cores{f' and {len(plan.gpus)} GPUs' if plan.gpus else ''}"
        + (f", without {total.n_unknown} jobs of which nothing is known" if total.n_unknown else "")
        + (", without downloads" if total.n_downloads else ""),
        f"  {_hours(total.cpu_hours)} hours of a core" + (f", {_hours(total.gpu_hours)} hours of a GPU" if total.gpu_hours else ""),
        f"  {known}",
    ]
    if total.gpu_hours and not plan.gpus:
        lines.append(
            "  hours of a GPU are a rule of thumb for one of a data centre; the time here is that of CPUs, since no GPU is visible"
        )
    if speed:
        lines.append(
            f"  probe, {speed.processes} processes at once: Python and tables start in {speed.start:.2f} s, torch in {speed.torch:.1f} s, "
            f"an encoder of the mini CLIP's size takes {1 / speed.image:,.0f} images/s, a thread does {speed.flops / 1e9:.0f} GFLOP/s"
            + (f", the first GPU {speed.gpu_flops / 1e12:.0f} TFLOP/s" if speed.gpu_flops else "")
        )
    return lines


def _prices(plan: Plan) -> list[str]:
    if not plan.prices:
        return []
    known = [one.dollars for one in plan.prices if one.dollars is not None]
    unknown = [one.model for one in plan.prices if one.dollars is None]
    without = f", without {', '.join(unknown)}, whose price is not known" if known and unknown else ""
    most = f"at most {sum(known):,.2f} ${without}" if known else "their prices are not known"
    return [f"endpoints: {most}", *(f"  {one.said}" for one in plan.prices)]


def _verdicts(plan: Plan) -> list[str]:
    lines = [f"NO VERDICT: {one.dataset}: {one.no_verdict}" for one in plan.outlooks if one.no_verdict]
    possible = [one for one in plan.outlooks if not one.no_verdict]
    if possible:
        rows = [["verdicts", "measure", "groups", "comparisons", "smallest gap that shows"]]
        for one in possible:
            groups = "not known" if one.groups is None else f"{'' if one.is_exact else 'at most '}{one.groups:.0f}"
            least = "not known" if one.detectable is None else f"{'' if one.is_exact else 'at least '}{one.detectable:.3f}"
            rows.append([one.dataset, one.measure, groups, str(one.n_comparisons), least])
        lines += [*columns(rows), f"  {verdicts.ASSUMED}"]
    return [*lines, *plan.unasked]


def as_json(plan: Plan) -> dict[str, Any]:
    """The same for programs: seconds, bytes, MB as their names say."""
    states = Counter(one.state for one in plan.found)
    return {
        "run": plan.run,
        "cells": {"all": plan.n_cells, "finished": plan.n_finished_cells},
        "jobs": {"all": len(plan.found), **states},
        "not_waiting": [
            {"job": str(one.job), "state": one.state, "why": one.why} for one in plan.found if one.state not in ("finished", "waiting")
        ],
        "stages": {
            stage: {
                "to_do": len(own := [one for one in plan.efforts if one.stage == stage]),
                "finished": sum(one.job.stage == stage and one.state == "finished" for one in plan.found),
                "seconds": sum(one.seconds or 0 for one in own),
                "unknown": sum(one.seconds is None for one in own),
                "gpu_hours": sum(one.gpu_seconds for one in own) / 3600,
                "sources": dict(Counter(one.source for one in own)),
            }
            for stage in dict.fromkeys(one.job.stage for one in plan.found)
        },
        "downloads": _dicts(plan.wanted),
        "has_token": plan.has_token,
        "disks": _dicts(plan.disks),
        "gpus_mb": plan.gpus,
        "gpu_memory_mb": _dicts(plan.memory),
        "time": {**plan.total._asdict(), "cores": plan.cores, "probe": plan.speed and plan.speed._asdict()},
        "endpoints": _dicts(plan.prices),
        "without_architecture": plan.without_file,
        "left_out": plan.left_out,
        "verdicts": _dicts(plan.outlooks),
        "assumed": verdicts.ASSUMED,
        "not_asked": plan.unasked,
    }


def _dicts(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [row._asdict() for row in rows]


def columns(rows: list[list[str]]) -> list[str]:
    """Text under text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def size(count: float | None, sized: str = "") -> str:
    """`1.2 GB`, with how it is known where that is said."""
    if count is None:
        return "size unknown"
    amount = f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
    return f"{sized.partition(',')[0]} {amount}" if sized.startswith("about") else amount


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"
