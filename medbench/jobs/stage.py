"""A stage, declared once: rules, resume keys, `status`, "why absent" and the command line all read this one declaration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from medbench.jobs import rerun

TRACKED = False  # what a stage declares reaches a job by its parameters


class Needs(NamedTuple):
    """What a job asks of a scheduler. Nothing here changes a result."""

    memory_mb: int = 1000
    minutes: int = 30
    gpus: int = 0
    network: bool = False  # compute nodes of a cluster often have none


def _nothing(params: Any, *names: str) -> list[Path]:
    return []


def _none(params: Any, *names: str) -> list[str]:
    return []


def _empty(config: Any, *names: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Stage:
    """One kind of job. `names` below are those that choose a job, in the order of `keys`.

    A stage is a module in `medbench/stages/`, a name in `medbench.stages.STAGES`, a rule, a verb and a log folder of that name.
    """

    name: str
    keys: tuple[str, ...]
    """Of dataset, model, mode, run: what chooses one job."""
    params: Callable[..., Any]
    """(config, *names) -> NamedTuple of JSON-able values: all that changes the result besides input files and code. A job sees no more
    of the configuration than this, so what is tracked and what is used cannot differ. Raises MedbenchError."""
    outputs: Callable[..., list[Path]]
    """(*names) -> the files that a job writes, the first standing for it: its run record lies beside that. Wildcards pass as names."""
    run: Callable[..., dict[str, Any] | None]
    """(params, *names), and the job's `Work` where it `resumes`: writes the outputs; may return facts for the run record."""
    inputs: Callable[..., list[Path]] = _nothing
    """(params, *names) -> the files that other jobs write and this one reads."""
    uses: Callable[[Any], tuple[str, ...]] = lambda params: ()
    """(params) -> code that the job loads by name, as `module` or `module:definition` of `medbench.jobs.rerun`."""
    notes: Callable[..., list[str]] = _none
    """(params, *names) -> what a person should know of what was made, a line each: said when the job is done."""
    needs: Callable[..., Needs] = lambda config, *names: Needs()
    """(config, *names) -> what the job asks of a scheduler, at its first try."""
    resumes: bool = False
    """Whether a killed job goes on where it was: then it gets a `Work`, found again by all of the above."""
    beside: Callable[..., dict[str, Any]] = _empty
    """(config, *names) -> what a job that `resumes` is told besides its parameters: what changes no result, as addresses and limits."""
    replaced: Callable[..., list[str]] = _none
    """(params, *names) -> lines on what a finished job read besides its inputs, and is no longer as it was."""
    is_handed: bool = False
    """Whether its rule hands a job its parameters: for short jobs, since reading the configuration would take as long as the work."""

    def code(self, params: Any) -> tuple[str, ...]:
        """All code of a job: the stage's own with what its parameters can do, and what it loads by name."""
        kind = type(params)
        return (f"{self.run.__module__}:{self.run.__name__}", f"{kind.__module__}:{kind.__name__}", *self.uses(params))

    def fingerprint(self, params: Any) -> str:
        """The text that must stay equal for a finished job to stay finished, but for versions of libraries."""
        return rerun.fingerprint(params, self.code(params))

    def execute(self, params: Any, *names: str, beside: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Do one job; facts for its run record. Raises MedbenchError for what a person can fix."""
        if not self.resumes:
            return self.run(params, *names) or {}
        from medbench.jobs import partial, records  # with pyarrow

        versions = records.made(None, self.code(params)).now
        with partial.work(self.name, names, self.fingerprint(params), versions, self.inputs(params, *names)) as work:
            work.beside = dict(beside)
            return self.run(params, *names, work) or {}
