"""Layout `hub-vqa`: questions as the hub publishes them, `data/{split}-*.parquet` of `image{bytes,path}, question, answer`.

No id, no answer type, no group there: a sample is named by its split and its number in it, closed is what has the answer yes or no, and an
image's digest is its group.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from medbench.datasets.layouts import SPLIT_WORDS, SPLITS, Embedded, Item, Source, Strict, VqaItem, embed, is_yes_no
from medbench.datasets.reading import parquet_rows

SHARD = re.compile(r"(\w+)-\d+.*\.parquet")
BINARY, TEXT = (pa.binary(), pa.large_binary()), (pa.string(), pa.large_string())


class Options(Strict):
    """`folder`: where the shards lie in `raw_dir`."""

    folder: str = "data"


def index_files(options: Options, source: Source) -> list[Path]:
    """The shards in the order of their names. Raises MedbenchError when there is none, or one of an unknown split."""
    folder = source.inside(options.folder, "option folder")
    shards = sorted(folder.glob("*.parquet"))
    for shard in shards:
        _split(shard, source)
    if not shards:
        raise source.error(
            options.folder, f"holds no shard {{split}}-*.parquet in {source.folder}", "put the data set's Parquet files there"
        )
    return shards


def items(options: Options, source: Source) -> Iterator[Item]:
    """One item a question."""
    numbers = dict.fromkeys(SPLITS, 0)
    digests: dict[str, str] = {}
    for shard in index_files(options, source):
        split, name = _split(shard, source), f"{options.folder}/{shard.name}"
        for place, row in parquet_rows(shard, name, source, partial(_columns, name=name, source=source)):
            image, path = _image(row["image"] or {}, place, source)
            if isinstance(image, Embedded) and path and digests.setdefault(path, image.digest) != image.digest:
                raise source.error(place, f"image {path!r} stands already with other bytes", "give different images different paths")
            group = image.digest if isinstance(image, Embedded) else str(path)
            answer = row["answer"] or ""
            kind = "closed" if is_yes_no(answer) else "open"
            yield VqaItem(f"{split}-{numbers[split]:05d}", group, split, image, place, row["question"] or "", answer, kind)
            numbers[split] += 1


def has_train(options: Options, source: Source) -> bool:
    """Whether a shard is for training."""
    return any(_split(shard, source) == "train" for shard in index_files(options, source))


def _image(value: dict[str, Any], place: str, source: Source) -> tuple[Path | Embedded, str | None]:
    """The image and its name: embedded, or a file in `raw_dir` where the shard holds only a path."""
    data, path = value.get("bytes"), value.get("path")
    if data is None and path:
        return source.inside(path, place), path
    return embed(data or b""), path


def _split(shard: Path, source: Source) -> str:
    match = SHARD.fullmatch(shard.name)
    if match is None or match[1].lower() not in SPLIT_WORDS:
        raise source.error(
            shard.name, "does not say its split", f"name shards {{split}}-00000-of-00001.parquet with one of {', '.join(SPLIT_WORDS)}"
        )
    return SPLIT_WORDS[match[1].lower()]


def _columns(schema: pa.Schema, name: str, source: Source) -> list[str]:
    """What is read of a shard. Raises MedbenchError for a column that is missing or of another type."""
    for column in ("image", "question", "answer"):
        if column not in schema.names:
            raise source.error(
                name, f"column {column!r} is missing (found {', '.join(schema.names)})", "a shard has image, question, answer"
            )
    image = schema.field("image").type
    kinds = {field.name: field.type for field in image} if pa.types.is_struct(image) else {}
    if not (kinds.get("bytes") in BINARY and kinds.get("path") in TEXT):
        raise source.error(name, f"column 'image' holds {image}, not a struct of bytes and path", "write it as the hub does")
    for column in ("question", "answer"):
        kind = schema.field(column).type
        if kind not in TEXT:
            raise source.error(name, f"column {column!r} holds {kind}, not text", "write it as text")
    return ["image.bytes", "image.path", "question", "answer"]
