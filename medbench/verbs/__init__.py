"""Verbs that are no stage, one file each: `add_arguments(parser)`, `execute(args)`; the first line of the file is its help."""

import importlib
from types import ModuleType

VERBS = (
    "try",
    "plan",
    "docs",
    "status",
    "why",
    "doctor",
    "export-model",
    "verify",
    "clean",
    "store",
    "unlock",
    "datasets",
    "models",
    "lock-models",
    "fetch-all",
    "bundle",
    "unbundle",
    "ask",
    "label",
    "make-questions",
    "score-answers",
    "compare-paper",
    "completion",
)


def get(name: str) -> ModuleType:
    """The module of a verb."""
    return importlib.import_module(f"medbench.verbs.{name.replace('-', '_')}")
