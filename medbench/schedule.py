"""All jobs of a run in the order of execution, and how each stands: what `status` and `why` say, beside a running start and on a cluster.

What a job does is read from what it leaves: its outputs and their run record, its log, and who holds its unfinished work.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from medbench import cells, paths, stages
from medbench.cells import Cell
from medbench.config import Config, Manual, sources
from medbench.errors import MedbenchError
from medbench.jobs import console, exclusive, integrity, locks, slurm

TRACKED = False  # how jobs stand is no part of a result

STATES = ("finished", "running", "waiting", "failed", "stale", "deleted")
"""`stale`: runs again, with the reason; `deleted`: its output is gone and nothing needs it."""
OPEN = ("running", "waiting", "failed", "stale")
"""Of jobs that are to be done."""


_BEHIND = "behind a failed job: "


class Job(NamedTuple):
    """One job of a run, and what it reads of others' outputs: file -> place of its job in the list."""

    stage: str
    names: tuple[str, ...]
    outputs: tuple[Path, ...]
    reads: Mapping[Path, int]

    def __str__(self) -> str:
        return f"{self.stage} {'/'.join(self.names)}"

    @property
    def log(self) -> Path:
        """Where its standard output and error go."""
        return paths.log(self.stage, *self.names)


class Standing(NamedTuple):
    """How a job stands: one of `STATES`, why in words, and seconds that it took or, where it runs, has taken."""

    job: Job
    state: str
    why: str = ""
    seconds: float | None = None


def jobs(config: Config, *more: tuple[str, tuple[str, ...]]) -> list[Job]:
    """Every job that leads to the run's cells and its report, each after those that it needs. `more`: others, stage and names."""
    run, grid = config.run.run, cells.grid(config)
    makers: dict[Path, tuple[str, tuple[str, ...]]] = {}
    others = [key for stage, names in more for key in stages.jobs(config, [dict(zip(stages.get(stage).keys, names, strict=True))])]
    for stage, names in (*stages.jobs(config, [cell._asdict() for cell in grid]), *others):
        makers |= dict.fromkeys(stages.get(stage).outputs(*names), (stage, names))
    ordered: list[Job] = []
    places: dict[tuple[str, tuple[str, ...]], int] = {}

    def add(key: tuple[str, tuple[str, ...]]) -> int:
        if key not in places:
            declared = stages.get(key[0])
            read = declared.inputs(declared.params(config, *key[1]), *key[1])
            reads = {file: add(makers[file]) for file in read if file in makers}
            places[key] = len(ordered)
            ordered.append(Job(*key, tuple(declared.outputs(*key[1])), reads))
        return places[key]

    for target in (*(paths.predictions(*cell) for cell in grid), paths.report_files(run)[0]):
        add(makers[target])
    for key in more:
        add(key)
    return ordered


def of_cell(ordered: list[Job], cell: Cell) -> list[int]:
    """Places of the jobs that lead to a cell and its intervals."""
    return leading(
        ordered, [place for place, job in enumerate(ordered) if job.stage in ("predict", "interval") and job.names == tuple(cell)]
    )


def leading(ordered: list[Job], wanted: list[int]) -> list[int]:
    """Places of some jobs and of all that lead to them."""
    wanted, found = list(wanted), set[int]()
    while wanted:
        place = wanted.pop()
        if place not in found:
            found.add(place)
            wanted += ordered[place].reads.values()
    return sorted(found)


def standings(config: Config, ordered: list[Job]) -> list[Standing]:
    """How every job stands now."""
    lasting = cache(lambda dataset: stages.lasting(config, dataset))
    at_work = _AtWork(_begun(), dict(_held()), slurm.queued())
    found: list[Standing] = []
    for job in ordered:
        kept = stages.read_before(job.stage, job.names, job.reads, lasting)
        before = dict.fromkeys(place for file, place in job.reads.items() if file not in kept)
        found.append(_standing(config, job, [found[place] for place in before], at_work))
    needed = {place for one in found if one.state in OPEN for place in one.job.reads.values()}
    return [
        one._replace(state="waiting", why="its output is gone, and a job needs it") if one.state == "deleted" and place in needed else one
        for place, one in enumerate(found)
    ]


class _AtWork(NamedTuple):
    """When the start began that works in this folder, who holds the unfinished work of which job, and what SLURM has in its queue."""

    begun: float | None
    held: Mapping[str, locks.Owner]
    queued: Mapping[str, slurm.Queued]


def _standing(config: Config, job: Job, before: list[Standing], at_work: _AtWork) -> Standing:
    record = integrity.read(paths.run_record(job.outputs[0]))
    ticket = at_work.queued.get(slurm.comment(job.stage, job.names))
    if (owner := at_work.held.get(str(job))) is not None:
        said = (console.far(job.log), _where(owner), str(ticket or ""))
        return Standing(job, "running", ", ".join(filter(None, said)), time.time() - _since(owner))
    if ticket is not None:
        far = "" if ticket.waits else console.far(job.log)
        return Standing(job, "waiting" if ticket.waits else "running", ", ".join(filter(None, (far, str(ticket)))))
    try:
        is_live = at_work.begun is not None and job.log.stat().st_mtime >= at_work.begun
    except OSError:
        is_live = False
    if not job.outputs[0].exists():
        error = console.error_of(job.log, "")[0]
        if record and error.startswith("ERROR: ") and not _was_before(job):
            record = None  # of an earlier try
        if is_live and not error.startswith("ERROR: "):
            return Standing(job, "running", console.far(job.log), _age(job.log))
        if job.log.exists() and not record:
            return Standing(job, "failed", error.removeprefix("ERROR: ") or "it ended without a word: it was killed")
        if record:
            return Standing(
                job,
                "deleted",
                f"{job.outputs[0]} is gone; `snakemake --cores all {job.outputs[0]}`, with the run's --configfile, makes it again",
            )
        return Standing(job, "waiting", _waits(before) or _lacks(config, job))
    seconds = float(record["seconds"]) if record and isinstance(record.get("seconds"), int | float) else None
    try:
        findings = stages.look(config, job.stage, job.names).findings
    except MedbenchError as error:
        return Standing(job, "failed", str(error), seconds)
    if again := [f"{one.path.name} {one.found}" for one in findings if one.kind in ("altered", "stale")]:
        return Standing(job, "stale", "; ".join(again), seconds)
    if remade := [str(one.job) for one in before if one.state in ("stale", "running", "waiting", "failed")]:
        return Standing(job, "stale", f"follows {remade[0]}{f' and {len(remade) - 1} more' if len(remade) > 1 else ''}", seconds)
    return Standing(job, "finished", "", seconds)


def _waits(before: list[Standing]) -> str:
    """For what a job waits; empty where it could begin."""
    for one in before:
        if one.state == "failed":
            return f"{_BEHIND}{one.job}"
        if one.why.startswith(_BEHIND):
            return one.why
    return next((f"after {one.job}" for one in before if one.state != "finished"), "")


def _lacks(config: Config, job: Job) -> str:
    """What a person must do before a job can end well; empty where nothing is known."""
    if job.stage == "fetch":
        entry, folder = config.datasets[job.names[0]], paths.raw(job.names[0])
        if isinstance(entry.source, Manual) and not (folder.is_dir() and any(folder.iterdir())):
            return "; ".join(sources.application(entry.source.model_dump(), job.names[0]))
        return "its files are gated: accept the licence on their page, then `hf auth login`" if entry.about.access == "gated" else ""
    if "model" not in stages.get(job.stage).keys:
        return ""
    model = config.models[job.names[stages.get(job.stage).keys.index("model")]]
    if not model.has_file:
        return f"architecture {model.architecture!r} has no file yet, so it will fail"
    if not model.about.gated or model.checkpoint is None or Path(model.checkpoint).expanduser().is_dir():
        return ""
    from huggingface_hub import constants

    held = Path(constants.HF_HUB_CACHE, f"models--{model.checkpoint.replace('/', '--')}", "snapshots").is_dir()
    return "" if held else "its weights are gated: accept the licence on their page, then `hf auth login`"


def _was_before(job: Job) -> bool:
    """Whether a job's log is not younger than its run record, but for what is said at its end."""
    try:
        return job.log.stat().st_mtime <= paths.run_record(job.outputs[0]).stat().st_mtime + 5
    except OSError:
        return False


def _begun() -> float | None:
    """When the start began that works in this folder [s since the epoch]; None where there is none."""
    owner = locks.read(exclusive.FOLDER / "medbench.owner")
    if owner is None or owner.lives() is False:
        return None
    return _since(owner)


def _since(owner: locks.Owner) -> float:
    """When an owner took its lock [s since the epoch]."""
    return time.mktime(time.strptime(owner.since, "%Y-%m-%d %H:%M:%S"))


def _held() -> Iterator[tuple[str, locks.Owner]]:
    """Job -> who works on it, here or on another host, by the notes beside unfinished work."""
    for note in paths.partial("").glob("*.owner"):
        owner = locks.read(note)
        if owner is not None and owner.lives() is not False:
            yield owner.job, owner


def _where(owner: locks.Owner) -> str:
    return f"on host {owner.host} since {owner.since}" if owner.lives() is None else ""


def _age(log: Path) -> float | None:
    """Seconds since a job began its log; None where it has written into it, since Linux keeps no time of birth that Python 3.11 reads."""
    found = log.stat()
    return time.time() - found.st_mtime if found.st_size == 0 else None


def seconds_left(found: Collection[Standing]) -> float | None:
    """Of jobs that are not done, one after another, by those of the same stage and model that are [s]; None where nothing is known."""
    known: dict[tuple[str, ...], list[float]] = {}
    for one in found:
        if one.state == "finished" and one.seconds is not None:
            for key in _kin(one.job):
                known.setdefault(key, []).append(one.seconds)
    total, is_known = 0.0, True
    for one in found:
        if one.state in OPEN:
            like = next((known[key] for key in _kin(one.job) if key in known), None)
            is_known &= like is not None
            total += sum(like) / len(like) if like else 0.0
    return total if is_known or total else None


def _kin(job: Job) -> list[tuple[str, ...]]:
    """Which jobs take as long, the most alike first: of its model and mode, of its mode, of its stage."""
    return [(job.stage, *job.names[1:]), (job.stage, *job.names[2:]), (job.stage,)]
