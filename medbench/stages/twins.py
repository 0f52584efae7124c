"""twins: which samples of a data set another of its splits holds too, so that intervals can leave them out (subset `clean`).

A stage of its own, and no column of the test split: what counts as a twin may change, and then no model job runs again.
"""

from typing import NamedTuple

from medbench import paths, tables
from medbench.config import Config
from medbench.datasets import sharing

KEYS = ("dataset",)


class Params(NamedTuple):
    """Nothing besides the data: equal bytes and equal pixels need no threshold."""


def params(config: Config, dataset: str) -> Params:
    """Parameters of one data set."""
    return Params()


def run(params: Params, dataset: str) -> None:
    """Write `twins/{dataset}.parquet`. Images are compared by their digests: none is read."""
    splits = {
        split: tables.read(tables.SamplesDiagnosis, paths.samples(dataset, split), ["sample_id", "image_id"]) for split in paths.SPLITS
    }
    digests = tables.read(tables.Images, paths.images(dataset), ["image_id", "pixel_digest"])
    tables.write(tables.Twins, sharing.twins(splits, digests), paths.twins(dataset))
