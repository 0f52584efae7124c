"""twins: which samples of a data set another of its splits holds too, so that intervals can leave them out (subset `clean`).

A stage of its own, and no column of the test split: what counts as a twin may change, and then no model job runs again.
"""

from typing import TYPE_CHECKING, NamedTuple

from medbench import paths, tables
from medbench.datasets import sharing

if TYPE_CHECKING:
    from medbench.config import Config

KEYS = ("dataset",)


class Params(NamedTuple):
    """Bits in which images that look alike may differ; None, the default: only equal bytes and equal pixels make twins."""

    threshold: int | None


def params(config: "Config", dataset: str) -> Params:
    """Parameters of one data set."""
    near = config.run.near_duplicates
    return Params(near.threshold if near.in_clean else None)


def run(params: Params, dataset: str) -> None:
    """Write `twins/{dataset}.parquet`. Images are compared by their digests: none is read."""
    splits = {
        split: tables.read(tables.SamplesDiagnosis, paths.samples(dataset, split), ["sample_id", "image_id"]) for split in paths.SPLITS
    }
    digests = tables.read(tables.Images, paths.images(dataset), ["image_id", "pixel_digest", "perceptual_hash"])
    tables.write(tables.Twins, sharing.twins(splits, digests, params.threshold), paths.twins(dataset))
