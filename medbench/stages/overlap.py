"""overlap: which images, pictures and groups the data sets and splits of a run share."""

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from medbench import paths, tables
from medbench.datasets import sharing
from medbench.jobs.stage import Needs, Stage
from medbench.tasks.reading import read_images_of

if TYPE_CHECKING:
    from medbench.config import Config


class Params(NamedTuple):
    """The run's data sets, and the bits in which near duplicates may differ."""

    datasets: tuple[str, ...]
    threshold: int


def params(config: "Config", name: str) -> Params:
    """`name` is the configuration's own: a run is known by its lists alone."""
    return Params(config.run.datasets, config.run.near_duplicates.threshold)


def run(params: Params, name: str) -> None:
    """Write `paths.overlap(name)`."""
    prepared = [dataset for dataset in params.datasets if paths.card(dataset).exists()]  # all of them, but for `snakemake now`
    used = [_uses(dataset, split) for dataset in prepared for split in paths.SPLITS]
    tables.write(tables.Overlap, sharing.shared(used, params.threshold), paths.overlap(name))


def _uses(dataset: str, split: str) -> pl.DataFrame:
    samples = read_images_of(paths.samples(dataset, split), ["sample_id", "group_id"])
    digests = tables.read(tables.Images, paths.images(dataset), ["image_id", "pixel_digest", "perceptual_hash"])
    return sharing.uses(dataset, split, samples, digests)


STAGE = Stage(
    name="overlap",
    keys=("run",),
    params=params,
    inputs=lambda params, name: [file for dataset in params.datasets for file in paths.data(dataset)],
    outputs=lambda run: [paths.overlap(run)],
    run=run,
    needs=lambda config, *names: Needs(memory_mb=2000, minutes=60),
    is_handed=True,
)
