"""What splits share, within and across data sets: images of equal bytes, of equal pixels, alike; groups."""

from collections.abc import Mapping

import polars as pl

from medbench import tables

IMAGE_KINDS = {"exact-image": "image_id", "exact-pixels": "pixel_digest"}  # kind -> column that is equal, the closest likeness first
KINDS = {**IMAGE_KINDS, "group": "group_id"}
NEAR = "near-duplicate"


def uses(dataset: str, split: str, samples: pl.DataFrame, digests: pl.DataFrame) -> pl.DataFrame:
    """One row a distinct image, picture or group of a split, with the first sample that uses it.

    `samples`: sample_id, group_id, image_id; `digests`: image_id, pixel_digest, perceptual_hash.
    Columns: kind, key, hash (null for groups), dataset, split, sample_id.
    """
    joined = samples.join(digests, on="image_id", how="left", maintain_order="left")
    parts = [
        joined.unique(column, keep="first", maintain_order=True).select(
            pl.lit(kind).alias("kind"),
            pl.col(column).alias("key"),
            (pl.lit(None, pl.UInt64) if kind == "group" else pl.col("perceptual_hash")).alias("hash"),
            pl.lit(dataset).alias("dataset"),
            pl.lit(split).alias("split"),
            "sample_id",
        )
        for kind, column in KINDS.items()
    ]
    return pl.concat(parts)


def duplicates(splits: Mapping[str, pl.DataFrame], digests: pl.DataFrame, threshold: int | None = None) -> pl.DataFrame:
    """Table `duplicates` of one data set. `splits`: split -> sample_id, image_id; `digests`: image_id, pixel_digest, perceptual_hash.

    `threshold`: bits in which images that look alike may differ; None: only equal images are duplicates.
    """
    samples = pl.concat([frame.select(pl.lit(split).alias("split"), "sample_id", "image_id") for split, frame in splits.items()])
    joined = samples.join(digests, on="image_id", how="left", maintain_order="left")
    found = []
    for kind, column in IMAGE_KINDS.items():
        own = joined.select("split", "sample_id", column)
        other = own.unique(["split", column], keep="first", maintain_order=True)
        pairs = own.join(other.select(column, other_split="split", other_sample_id="sample_id"), on=column, maintain_order="left_right")
        found.append(pairs.filter(pl.col("split") != pl.col("other_split")).with_columns(kind=pl.lit(kind)))
    if threshold is not None:
        found.append(_near_duplicates(joined, threshold))
    key = ["split", "sample_id", "other_split"]
    types = tables.columns(tables.Duplicates)
    closest = pl.concat([frame.select(*types) for frame in found]).unique(key, keep="first", maintain_order=True)
    return closest.select(pl.col(name).cast(kind) for name, kind in types.items()).sort(key)


def _near_duplicates(joined: pl.DataFrame, threshold: int) -> pl.DataFrame:
    """Samples with an image that looks like one of another split, the first of them in order."""
    own = joined.select("split", "sample_id", hash="perceptual_hash")
    other = own.unique(["split", "hash"], keep="first", maintain_order=True)
    pairs = own.join(close(own["hash"], threshold), on="hash", maintain_order="left").join(
        other.select(other_hash="hash", other_split="split", other_sample_id="sample_id"), on="other_hash", maintain_order="left_right"
    )
    return pairs.filter(pl.col("split") != pl.col("other_split")).with_columns(kind=pl.lit(NEAR))


def close(hashes: pl.Series, threshold: int) -> pl.DataFrame:
    """Columns hash, other_hash: every pair of hashes within the threshold, in both directions, each hash with itself too."""
    from medbench.datasets.near import close_pairs  # with numpy

    distinct = hashes.drop_nulls().unique().sort().to_numpy()
    pairs = close_pairs(distinct, threshold)
    first, second = distinct[pairs.first], distinct[pairs.second]
    parts = [(distinct, distinct), (first, second), (second, first)]
    return pl.concat(
        [pl.DataFrame({"hash": one, "other_hash": other}, schema={"hash": pl.UInt64, "other_hash": pl.UInt64}) for one, other in parts]
    )


def shared(used: list[pl.DataFrame], threshold: int | None = None) -> pl.DataFrame:
    """Table `overlap` over the `uses` of some splits. Both directions of a pair have a row; groups are compared within a data set only.

    `threshold`: bits in which near duplicates may differ; None: they are not looked for.
    """
    if not used:
        return tables.empty(tables.Overlap)
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
    types = tables.columns(tables.Overlap)
    if threshold is not None:
        rows = pl.concat([rows.select(*types), _near(frame, pairs, threshold).select(*types)], how="vertical_relaxed")
    return rows.select(pl.col(name).cast(kind) for name, kind in types.items()).sort(*place, "other_dataset", "other_split")


def _near(frame: pl.DataFrame, pairs: pl.DataFrame, threshold: int) -> pl.DataFrame:
    """Rows of kind `near-duplicate`: pictures of a split that look like one of another split, and equal none there."""
    place, other = ["dataset", "split"], ["other_dataset", "other_split"]
    pictures = frame.filter(pl.col("kind") == "exact-pixels")
    seen = pictures.select(pl.col("dataset").alias(other[0]), pl.col("split").alias(other[1]), other_hash="hash").unique()
    alike = (
        pictures.join(close(pictures["hash"], threshold), on="hash")
        .join(seen, on="other_hash")
        .filter((pl.col("dataset") != pl.col("other_dataset")) | (pl.col("split") != pl.col("other_split")))
        .unique([*place, *other, "key"])
    )
    equal = pairs.filter(pl.col("kind") == "exact-pixels").select(*place, "key", other_dataset="dataset_other", other_split="split_other")
    totals = pictures.group_by(place).agg(total=pl.len())
    return (
        alike.join(equal, on=[*place, *other, "key"], how="anti")
        .group_by([*place, *other])
        .agg(shared=pl.len(), examples=pl.col("sample_id").sort().head(5))
        .join(totals, on=place)
        .with_columns(kind=pl.lit(NEAR))
    )


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
