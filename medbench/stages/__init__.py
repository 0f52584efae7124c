"""One module a stage, named like its rule, its CLI verb, its log folder and its test file; each holds a `STAGE` (`medbench.jobs.stage`).

Importing a stage is cheap: torch, transformers, scikit-learn and altair are imported inside functions or in modules loaded by name.
"""

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medbench import paths
from medbench.errors import MedbenchError
from medbench.jobs import digests, integrity, records
from medbench.jobs.stage import Stage

if TYPE_CHECKING:
    from medbench.config import Config

TRACKED = False  # which stages there are is no result

STAGES = (
    "pretrain", "fetch", "prepare", "embed", "prompts", "adapt", "predict", "validate",
    "calibrate", "judge", "score", "duplicates", "interval", "gaps", "overlap", "report",
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


def jobs(config: "Config", cells: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """All jobs that a run of these cells (key -> name) may have, each once: stage, names. Some have nothing to do with their cell."""
    named = [*({"model": judge} for judge in config.run.judges), *({**cell, "run": config.run.run} for cell in cells)]
    found = dict.fromkeys((stage, names) for one in named for stage, names, _ in way(one))
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
    findings = [*integrity.inspect(outputs, fingerprint, exact)]
    if outputs[0].exists():
        findings += [integrity.Finding("stale", outputs[0], line) for line in declared.replaced(params, *names)]
    upgraded = tuple(f"{name} {version} -> {made.now[name]}" for name, version in made.then.items() if version != made.now[name])
    return Look(declared.inputs(params, *names), f"{fingerprint} {digests.canonical(versions)}", tuple(findings), upgraded)


def lasting(config: "Config", dataset: str) -> dict[str, str]:
    """Tables of a prepared data set, and its `duplicates`, that this start leaves as they are, though `prepare` may run again.

    Path -> SHA-256. So one corrected label of the test split retrains nothing. Of what other code or parameters would write nothing is
    known.
    """
    declared = get("prepare")
    params, outputs = declared.params(config, dataset), declared.outputs(dataset)
    record, place = integrity.read(paths.run_record(outputs[0])), [*outputs, paths.duplicates(dataset)]
    if record is None or not outputs[0].exists() or record.get("params") != json.loads(declared.fingerprint(params)):
        return {}
    if config.run.rerun_on_versions and look(config, "prepare", (dataset,)).upgraded:
        return {}
    inputs = declared.inputs(params, dataset)
    same = integrity.of_inputs(inputs) == record.get("inputs") and not declared.replaced(params, dataset)
    if not same:
        from medbench.stages import prepare

        try:
            place = prepare.unchanged(params, dataset)
        except MedbenchError:  # the job says so
            return {}
    found = {str(path): record["outputs"].get(str(path)) for path in place if path in outputs}
    if paths.duplicates(dataset) in place:
        found |= _of_duplicates(config, dataset)
    return {path: made["sha256"] for path, made in found.items() if made}


def read_before(stage: str, names: tuple[str, ...], files: Iterable[Path], lasting: Callable[[str], Mapping[str, str]]) -> set[Path]:
    """The tables of data sets among a job's inputs that it has read as this start leaves them.

    The time of such a table means nothing, and `prepare` may write it again. `lasting`: of a data set, as above.
    """
    record = integrity.read(paths.run_record(get(stage).outputs(*names)[0])) or {}
    then = record.get("inputs", {})
    tables = [file for file in files if str(file) in then and file.parts[:2] in (("results", "data"), ("results", "duplicates"))]
    return {file for file in tables if lasting(file.parts[2].removesuffix(".parquet")).get(str(file)) == then[str(file)]}


def _of_duplicates(config: "Config", dataset: str) -> dict[str, Any]:
    """The recorded output of that job, where it would run with the same parameters and code."""
    declared = get("duplicates")
    record = integrity.read(paths.run_record(paths.duplicates(dataset)))
    if record is None or record.get("params") != json.loads(declared.fingerprint(declared.params(config, dataset))):
        return {}
    return dict(record.get("outputs", {}))
