"""What a model answered is kept beside the predictions, so that a corrected label of a test sample asks no model again.

Predictions repeat what the test split says of a sample (its label, its reference answer). Where that alone has changed, and neither the
samples that were asked nor anything else that the answers follow from, they are put together with what it says now.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from medbench import paths
from medbench.jobs import digests, files

ASKED = ("sample_id", "group_id", "image_id", "image_ids", "question", "options", "is_positional")
"""Columns of the test split that a model's answers follow from."""


class Earlier(NamedTuple):
    """Predictions with the labels of now, and the facts of the job that made them."""

    table: pl.DataFrame
    facts: dict[str, Any]


def find(cell: tuple[str, str, str], key: str, test: pl.DataFrame, repeated: Mapping[str, str]) -> Earlier | None:
    """What is kept of a cell, where the same samples were asked, the answers follow from the same, and labels alone differ; else None.

    `key`: of all that they follow from besides the test split. `repeated`: column of predictions -> column of `test` that it repeats.
    """
    path = paths.answers(*cell)
    try:
        noted = json.loads(path.with_suffix(".json").read_bytes())
        same = noted["key"] == key and noted["asked"] == _asked(test) and noted["test"] != _all(test)
        if not same or noted["sha256"] != digests.file_digest(path):
            return None
        table = pl.read_parquet(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    now = [test[name].cast(table.schema[column]).alias(column) for column, name in repeated.items()]
    return Earlier(table.with_columns(now), noted["facts"])


def keep(cell: tuple[str, str, str], key: str, test: pl.DataFrame, made: Earlier) -> None:
    """Keep the predictions of a cell."""
    path = paths.answers(*cell)
    with files.atomic(path) as aside:
        made.table.write_parquet(aside)
    noted = {"key": key, "asked": _asked(test), "test": _all(test), "sha256": digests.file_digest(path), "facts": made.facts}
    with files.atomic(path.with_suffix(".json")) as aside:
        aside.write_text(json.dumps(noted), encoding="utf-8")


def _all(test: pl.DataFrame) -> str:
    return digests.digest(digests.canonical(test.rows()))


def _asked(test: pl.DataFrame) -> str:
    return digests.digest(digests.canonical(test.select(name for name in ASKED if name in test.columns).rows()))
