"""One module a stage, named like its rule, its CLI verb, its log folder and its test file; each holds a `STAGE` (`medbench.jobs.stage`).

Importing a stage is cheap: torch, transformers, scikit-learn and altair are imported inside functions or in modules loaded by name.
"""

import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from medbench.jobs.stage import Stage

TRACKED = False  # which stages there are is no result

STAGES = (
    "pretrain", "fetch", "prepare", "embed", "prompts", "adapt", "predict",
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
