"""One module a stage, named like its rule, its CLI verb, its log folder and its test file; each holds a `STAGE` (`medbench.jobs.stage`).

Importing a stage is cheap: torch, transformers, scikit-learn and altair are imported inside functions or in modules loaded by name.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medbench import paths
from medbench.jobs import digests, integrity, records
from medbench.jobs.stage import Stage

if TYPE_CHECKING:
    from medbench.config import Config

TRACKED = False  # which stages there are is no result

STAGES = (
    "pretrain", "fetch", "prepare", "embed", "prompts", "adapt", "predict", "validate",
    "score", "duplicates", "interval", "gaps", "overlap", "report",
)  # fmt: skip
"""In the order of execution. A stage without a rule of its own in `workflow/rules` gets one made from its declaration."""


@cache
def get(name: str) -> Stage:
    """A stage by its name."""
    stage: Stage = importlib.import_module(f"medbench.stages.{name}").STAGE
    return stage


def way(names: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...], Path]]:
    """The jobs that may lead to a cell of these names (key -> name), in the order of execution: stage, names, main output."""
    for stage in map(get, STAGES):
        if set(stage.keys) <= set(names):
            own = tuple(names[key] for key in stage.keys)
            yield stage.name, own, stage.outputs(*own)[0]


def jobs(run: str, cells: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """All jobs that a run of these cells (key -> name) may have, each once: stage, names. Some have nothing to do with their cell."""
    found = dict.fromkeys((stage, names) for cell in cells for stage, names, _ in way({**cell, "run": run}))
    yield from found


class Look(NamedTuple):
    """A job as the start of a workflow sees it: what it reads, its rerun key, and what is wrong with what it made before.

    `upgraded`: libraries of which it would use another version than it did, `name then -> now`.
    """

    inputs: list[Path]
    rerun_key: str
    findings: tuple[integrity.Finding, ...]
    upgraded: tuple[str, ...]


def look(config: "Config", stage: str, names: tuple[str, ...], exact: bool = False) -> Look:
    """`rerun_key`: the text that must stay equal for a finished job to stay finished: parameters, code and library versions.

    The versions are those that made the result, so that an upgrade alone reruns nothing; with `rerun_on_versions`, those of now.
    `exact`: findings by every byte.
    """
    declared = get(stage)
    params, outputs = declared.params(config, *names), declared.outputs(*names)
    record = integrity.read(paths.run_record(outputs[0]))
    made = records.made(record, declared.code(params))
    fingerprint = declared.fingerprint(params)
    versions = made.now if config.run.rerun_on_versions else made.then
    findings = tuple(integrity.inspect(outputs, fingerprint, exact))
    upgraded = tuple(f"{name} {version} -> {made.now[name]}" for name, version in made.then.items() if version != made.now[name])
    return Look(declared.inputs(params, *names), f"{fingerprint} {digests.canonical(versions)}", findings, upgraded)
