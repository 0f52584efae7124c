"""What splits share, within and across data sets: exact images (bytes), exact pixels, groups. For data card, ledger and twins."""

from collections.abc import Mapping

import polars as pl

from medbench import tables

IMAGE_KINDS = {"exact-image": "image_id", "exact-pixels": "pixel_digest"}  # kind -> column that is equal, the closest likeness first
KINDS = {**IMAGE_KINDS, "group": "group_id"}


def uses(dataset: str, split: str, samples: pl.DataFrame, digests: pl.DataFrame) -> pl.DataFrame:
    """One row a distinct image, picture or group of a split, with the first sample that uses it.

    `samples`: sample_id, group_id, image_id; `digests`: image_id, pixel_digest. Columns: kind, key, dataset, split, sample_id.
    """
    joined = samples.join(digests, on="image_id", how="left", maintain_order="left")
    parts = [
        joined.unique(column, keep="first", maintain_order=True).select(
            pl.lit(kind).alias("kind"),
            pl.col(column).alias("key"),
            pl.lit(dataset).alias("dataset"),
            pl.lit(split).alias("split"),
            "sample_id",
        )
        for kind, column in KINDS.items()
    ]
    return pl.concat(parts)


def twins(splits: Mapping[str, pl.DataFrame], digests: pl.DataFrame) -> pl.DataFrame:
    """Table `twins` of one data set. `splits`: split -> sample_id, image_id; `digests`: image_id, pixel_digest."""
    samples = pl.concat([frame.select(pl.lit(split).alias("split"), "sample_id", "image_id") for split, frame in splits.items()])
    joined = samples.join(digests, on="image_id", how="left", maintain_order="left")
    found = []
    for kind, column in IMAGE_KINDS.items():
        own = joined.select("split", "sample_id", column)
        other = own.unique(["split", column], keep="first", maintain_order=True)
        pairs = own.join(other.select(column, other_split="split", other_sample_id="sample_id"), on=column, maintain_order="left_right")
        found.append(pairs.filter(pl.col("split") != pl.col("other_split")).with_columns(kind=pl.lit(kind)))
    key = ["split", "sample_id", "other_split"]
    types = tables.columns(tables.Twins)
    closest = pl.concat([frame.select(*types) for frame in found]).unique(key, keep="first", maintain_order=True)
    return closest.select(pl.col(name).cast(kind) for name, kind in types.items()).sort(key)


def shared(used: list[pl.DataFrame]) -> pl.DataFrame:
    """Table `ledger` over the `uses` of some splits. Both directions of a pair have a row; groups are compared within a data set only."""
    if not used:
        return tables.empty(tables.Ledger)
    frame = pl.concat(used)
    place = ["kind", "dataset", "split"]
    totals = frame.group_by(place).agg(total=pl.len())
    pairs = frame.join(frame.drop("sample_id"), on=["kind", "key"], suffix="_other").filter(
        (pl.col("dataset") != pl.col("dataset_other")) & (pl.col("kind") != "group")
        | (pl.col("dataset") == pl.col("dataset_other")) & (pl.col("split") != pl.col("split_other"))
    )
    rows = (
        pairs.rename({"dataset_other": "other_dataset", "split_other": "other_split"})
        .group_by(*place, "other_dataset", "other_split")
        .agg(shared=pl.len(), examples=pl.col("sample_id").sort().head(5))
        .join(totals, on=place)
    )
    types = tables.columns(tables.Ledger)
    return rows.select(pl.col(name).cast(kind) for name, kind in types.items()).sort(*place, "other_dataset", "other_split")


def repeats(samples: pl.DataFrame, digests: pl.DataFrame) -> dict[str, pl.Series]:
    """Kind -> ids of the samples of one split that repeat an earlier one.

    `exact-image`: the same image again (`exact-question`, where there are questions: the same question about it); `exact-pixels`: another
    image that decodes to the same pixels.
    """
    joined = samples.join(digests, on="image_id", how="left", maintain_order="left")
    again, columns = ("exact-question", ["image_id", "question"]) if "question" in samples.columns else ("exact-image", ["image_id"])
    images = joined.unique("image_id", keep="first", maintain_order=True)
    return {
        again: joined.filter(~pl.struct(columns).is_first_distinct())["sample_id"],
        "exact-pixels": images.filter(~pl.col("pixel_digest").is_first_distinct())["sample_id"],
    }
