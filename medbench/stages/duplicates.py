"""duplicates: which samples of a data set another of its splits holds too, so that intervals can leave them out (subset `leak-free`).

A stage of its own, and no column of the test split: what counts as a duplicate may change, and then no model job runs again.
"""

from typing import TYPE_CHECKING, NamedTuple

from medbench import paths, tables
from medbench.datasets import sharing
from medbench.jobs.stage import Needs, Stage
from medbench.tasks.reading import read_images_of

if TYPE_CHECKING:
    from medbench.config import Config


class Params(NamedTuple):
    """Bits in which images that look alike may differ; None, the default: only equal bytes and equal pixels make duplicates."""

    threshold: int | None


def params(config: "Config", dataset: str) -> Params:
    """Parameters of one data set."""
    near = config.run.near_duplicates
    return Params(near.threshold if near.in_leak_free else None)


def run(params: Params, dataset: str) -> None:
    """Write `duplicates/{dataset}.parquet`. Images are compared by their digests: none is read."""
    splits = {split: read_images_of(paths.samples(dataset, split), ["sample_id"]) for split in paths.SPLITS}
    digests = tables.read(tables.Images, paths.images(dataset), ["image_id", "pixel_digest", "perceptual_hash"])
    tables.write(tables.Duplicates, sharing.duplicates(splits, digests, params.threshold), paths.duplicates(dataset))


STAGE = Stage(
    name="duplicates",
    keys=("dataset",),
    params=params,
    inputs=lambda params, dataset: [*(paths.samples(dataset, split) for split in paths.SPLITS), paths.images(dataset)],
    outputs=lambda dataset: [paths.duplicates(dataset)],
    run=run,
    needs=lambda config, *names: Needs(memory_mb=1000, minutes=10),
    is_handed=True,
)
