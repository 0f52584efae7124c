"""prepare: official files or drawn phantoms -> checked tables, every image once, and a data card. All or nothing."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from medbench import paths, tables, tasks
from medbench.config import Config, Strict, expand_raw_dir, is_fetched
from medbench.datasets import display, equals, ingest, layouts, sources
from medbench.datasets.card import Prepared, Validation, card, losses, remarks
from medbench.datasets.rows import Drop, Reader, Row, check_splits, chosen_groups, drawn, needed_splits, tidied
from medbench.errors import MedbenchError, choose, first, together
from medbench.jobs import digests, files, integrity, partial, process
from medbench.jobs.stage import Needs, Stage
from medbench.tables import lists
from medbench.tasks.reading import with_images


class Params(NamedTuple):
    """The registry entry as far as it decides the tables; `raw_dir` unexpanded, so that moving a folder reruns nothing."""

    task: str
    layout: str
    raw_dir: str | None  # None: generated, or fetched
    options: dict[str, Any]  # the layout's, defaults filled in
    classes: tuple[str, ...]
    validation: float
    max_drops: float
    allow_group_overlap: bool
    seed: int
    expected: dict[str, int] | None = None  # split -> rows, as published
    fetched: bool = False
    sample: dict[str, int | None] | None = None  # split -> samples to draw
    max_side: int | None = None  # pixels
    background: str = "white"
    bits: int | None = None

    @property
    def wanted(self) -> display.Wanted:
        """How images are shown."""
        return display.Wanted(self.max_side, self.background, self.bits)


class Images(NamedTuple):
    """What became of the images: key -> id or fault; why images were converted -> places."""

    outcome: dict[str, str | ingest.Fault]
    changes: dict[str, list[str]]
    levels: display.Levels  # of all that have more than 8 bits


def params(config: Config, dataset: str) -> Params:
    """Raises MedbenchError for a data set in no registry and for options that the layout does not know."""
    if dataset not in config.datasets:
        raise MedbenchError(f"data set {dataset}", f"is not in {config.run.registries.datasets}", choose(dataset, config.datasets))
    entry = config.datasets[dataset]
    options = layouts.read_options(entry.layout, entry.options, dataset).model_dump(mode="json")
    fetched = is_fetched(entry)
    return Params(
        entry.task,
        entry.layout,
        None if fetched else entry.raw_dir,
        options,
        entry.classes,
        entry.validation,
        entry.max_drops,
        entry.allow_group_overlap,
        config.run.seed,
        None if entry.allow_counts or entry.expected is None else entry.expected.model_dump(),
        fetched,
        None if entry.sample is None else entry.sample.model_dump(),
        entry.max_side,
        entry.background,
        entry.bits,
    )


def index_files(params: Params, dataset: str) -> list[Path]:
    """Raw files whose change must prepare a data set anew (labels.csv, shards). Raises MedbenchError when one does not exist.

    Of fetched files it is the record, since they need not be there yet.
    """
    if params.fetched:
        return [paths.fetched(dataset)]
    return _index_files(params, dataset)


def _index_files(params: Params, dataset: str) -> list[Path]:
    found = layouts.load_layout(params.layout).index_files(_options(params, dataset), _source(params, dataset))
    for path in found:
        if not path.is_dir() and (kind := files.irregular(path)):
            raise MedbenchError(f"data set {dataset}: {path.name}", f"is {kind}, not a file", f"put a file at {path}")
    return found


class Divided(NamedTuple):
    """Rows and what becomes of them."""

    equal: equals.Joined
    drops: list[Drop]
    published: dict[str, pl.DataFrame]  # split -> samples, before a validation split was cut
    splits: dict[str, pl.DataFrame]
    validation: Validation

    def is_evaluated(self, image_ids: Iterable[str]) -> list[bool]:
        """Whether val or test use an image."""
        used = {image_id for split in ("val", "test") for image_id in with_images(self.splits[split])["image_id"]}
        return [image_id in used for image_id in image_ids]


def run(params: Params, dataset: str) -> dict[str, Any]:
    """Write `paths.data(dataset)`; their digests for the run record. Raises MedbenchError for what is wrong with the files: then nothing is
    written.
    """
    source, reader = _source(params, dataset), _reader(params, dataset)
    with partial.anew(f"prepare-{dataset}", f"prepare {dataset}") as folder:
        _index_files(params, dataset)  # before the first is opened
        table = folder / "images.parquet"
        images, written = _check_images(reader, _items(params, dataset), table, params, dataset)
        divided = _divided(reader, images, written.columns, params, dataset)
        for split, frame in divided.splits.items():
            tables.write(tasks.get(params.task).samples, frame, folder / f"{split}.parquet")
        if (flags := divided.is_evaluated(written.columns["image_id"])) != written.columns["evaluated"].to_list():
            written = ingest.mark_evaluated(table, flags)
        sums = {file.name: digests.file_digest(file) for file in folder.iterdir() if file != table}
        sums = dict(sorted({**sums, table.name: written.sha256}.items()))
        scale = display.scale(images.levels, params.wanted)
        found = Prepared(dataset, params.task, params.classes, reader, images.changes, scale, *divided, written.columns, sums)
        told = card(found)
        (folder / "card.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        files.publish(folder, paths.data(dataset))  # the card last: where there is a card, the tables are its own
    for line in [*remarks(told), *losses(told)]:
        print(f"{source.where}: {line}", file=sys.stderr)
    noted = {key: sources.Noted(stamp, _image_id(images.outcome[key])) for key, stamp in reader.stamps.items()}
    sources.write(dataset, noted, source.raw_dir)
    return {integrity.COMPUTED: {str(file): sums[file.name] for file in paths.data(dataset) if file.name in sums}}


def _image_id(outcome: str | ingest.Fault) -> str | None:
    return None if isinstance(outcome, ingest.Fault) else outcome


def replaced(params: Params, dataset: str) -> list[str]:
    """What a finished `prepare` read and is no longer so, beside its index files: a line for images that were replaced or are gone, and
    one for folders whose time is later than its own, by which a start too sees that files were added or removed.
    """
    made = min((file.stat().st_mtime_ns for file in paths.data(dataset) if file.exists()), default=0)
    later = [str(path) for path in index_files(params, dataset) if path.is_dir() and path.stat().st_mtime_ns > made > 0]
    found = _replaced_images(params, dataset)
    return [*found, f"was made before files were added to or removed from {first(later, limit=3)}"] if later else found


def _replaced_images(params: Params, dataset: str) -> list[str]:
    folder = _source(params, dataset).raw_dir
    names = sorted(os.path.relpath(path, folder) for path in sources.changed(sources.read(dataset, folder)))
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [f"{len(names)} of its images {'is' if len(names) == 1 else 'are'} replaced or gone ({shown})"] if names else []


def unchanged(params: Params, dataset: str) -> list[Path]:
    """Of the tables that are there, those that `prepare` would write again as they are, though its index files changed; and the table
    `duplicates`, where it would follow from the same images.

    Rows are read, images are not: so nothing is known of a set with an image that is new. Raises MedbenchError for wrong rows.
    """
    folder, reader = _source(params, dataset).raw_dir, _reader(params, dataset)
    noted, old = sources.read(dataset, folder), tables.read(tables.Images, paths.images(dataset), [*ingest.DIGESTS, "evaluated"])
    known, images, changed = set(old["image_id"]), Images({}, {}, display.Levels()), set(sources.changed(noted))
    for key, image in reader.images(_items(params, dataset)):
        if isinstance(image, layouts.Embedded) and key in known:
            images.outcome[key] = key
        elif key in noted and key not in changed:
            images.outcome[key] = noted[key].image_id or ingest.Fault("broken-image", "as before")
        else:
            return []
    divided = _divided(reader, images, old, params, dataset)
    distinct = list(dict.fromkeys(outcome for outcome in images.outcome.values() if isinstance(outcome, str)))
    before = {split: tables.read(tasks.get(params.task).samples, paths.samples(dataset, split)) for split in paths.SPLITS}
    found = [paths.samples(dataset, split) for split, frame in divided.splits.items() if frame.equals(before[split])]
    if distinct == old["image_id"].to_list() and divided.is_evaluated(distinct) == old["evaluated"].to_list():
        found.append(paths.images(dataset))
        used = pl.col("sample_id", "^image_ids?$")
        if all(frame.select(used).equals(before[split].select(used)) for split, frame in divided.splits.items()):
            found.append(paths.duplicates(dataset))
    return found


def _reader(params: Params, dataset: str) -> Reader:
    return Reader(_source(params, dataset), params.max_drops, params.allow_group_overlap, params.expected)


def _items(params: Params, dataset: str) -> Iterator[layouts.Entry]:
    """What the layout yields, tidied, and drawn where only some are wanted."""
    source, layout, options = _source(params, dataset), layouts.load_layout(params.layout), _options(params, dataset)
    items = tidied(layout.items(options, source), source)
    if not params.sample:
        return items
    others = tidied(layout.items(options, source), source)
    return drawn(items, chosen_groups(others, params.sample, f"{params.seed}/{dataset}"))


def _divided(reader: Reader, images: Images, digests: pl.DataFrame, params: Params, dataset: str) -> Divided:
    equal, drops = _resolve(reader, images, digests)
    check_splits([row.item.split for row in equal.rows], {row.item.split for row in reader.rows}, reader.source)
    published = _frames(equal.rows, params)
    splits, validation = _with_validation(published, equal.rows, params, dataset)
    there = [split for split, frame in splits.items() if frame.height]
    check_splits(there, needed_splits(there), reader.source)
    return Divided(equal, drops, published, splits, validation)


def _source(params: Params, dataset: str) -> layouts.Source:
    raw_dir = paths.raw(dataset) if params.fetched else expand_raw_dir(params.raw_dir, f"data set {dataset}")
    return layouts.Source(dataset, params.task, raw_dir, tuple(params.classes), params.seed)


def _options(params: Params, dataset: str) -> Strict:
    return layouts.read_options(params.layout, params.options, dataset)


def _check_images(
    reader: Reader, items: Iterator[layouts.Entry], table: Path, params: Params, dataset: str
) -> tuple[Images, ingest.Written]:
    """Read all rows, check every image that they use once, and write those that are good to `table`.

    Which of them val or test use is known for certain after the last image alone, when it is known which rows are dropped and which
    files are equal; until then as if there were none such.

    Raises MedbenchError where rows are wrong.
    """
    outcome, changes, levels = dict[str, str | ingest.Fault](), dict[str, list[str]](), display.Levels()

    def good() -> Iterator[tuple[ingest.Checked, bool]]:
        nonlocal levels
        seen: set[str] = set()
        evaluated: frozenset[str] | None = None
        for key, image in ingest.check_all(reader.images(items), process.threads(), params.wanted):
            if evaluated is None and reader.n_read is not None:
                evaluated = _evaluated(reader.rows, params, dataset)
            if isinstance(image, ingest.Fault):
                outcome[key] = image
                continue
            outcome[key] = image.image_id
            if image.image_id not in seen:
                seen.add(image.image_id)
                levels = display.joined(levels, image.levels) if image.levels else levels
                if image.change:
                    changes.setdefault(image.change, []).append(reader.first[key].place)
                yield image, reader.first[key].split != "train" if evaluated is None else key in evaluated

    written = ingest.write_table(table, good())
    if levels.integers or levels.floats:
        written = ingest.settled(table, levels, params.wanted, process.threads())
    return Images(outcome, changes, levels), written


def _evaluated(rows: list[Row], params: Params, dataset: str) -> frozenset[str]:
    """Images of rows that val or test have, or get."""
    cut = _cut(rows, params, dataset)
    return frozenset(image for row in rows if row.item.split != "train" or row.item.group_id in cut for image in row.images)


def _resolve(reader: Reader, images: Images, digests: pl.DataFrame) -> tuple[equals.Joined, list[Drop]]:
    """The rows with the id of their image, equal images in one group, and all that are dropped.

    Raises MedbenchError that names all rows that cannot be used, where they are more than allowed, and for equal images in two splits.
    """
    rows: list[Row] = []
    drops = list(reader.drops)
    for row in reader.rows:
        outcomes = [(key, images.outcome[key]) for key in row.images]
        if fault := next(((key, fault) for key, fault in outcomes if isinstance(fault, ingest.Fault)), None):
            key, image = fault
            file = key if image.reason in ("missing-image", "unreadable-image") else ""
            drops.append(Drop(image.reason, row.item.split, row.item.place, image.detail, file))
        else:
            rows.append(Row(row.item, tuple(image for _, image in outcomes if isinstance(image, str))))
    pixels = dict(digests.select("image_id", "pixel_digest").iter_rows())
    contradicted = equals.contradictions(rows, pixels)
    reader.require_budget([*drops, *contradicted])
    places = {drop.place for drop in contradicted}
    found = equals.joined([row for row in rows if row.item.place not in places], pixels)
    published = reader.allow_group_overlap or reader.expected  # the card and the report say what its splits share
    if not published and (errors := equals.crossings(found.rows, pixels, reader.source)):
        raise together(reader.source.where, errors)
    return found, [*drops, *contradicted]


def _frames(rows: list[Row], params: Params) -> dict[str, pl.DataFrame]:
    """Split -> table of samples, in the order of the rows; `rows` hold image ids."""
    types = tables.columns(tasks.get(params.task).samples)
    people = layouts.Demographics._fields
    own = [name for name in types if name not in ("label", "image_id", "image_ids", "skill", "skill_source", *people)]
    values: dict[str, list[Any]] = {name: [getattr(row.item, name) for row in rows] for name in own}
    values |= {name: [getattr(row.item.demographics, name) for row in rows] for name in people}
    if "skill" in types:
        skills = [row.item.skill for row in rows if not isinstance(row.item, layouts.DiagnosisItem)]
        values |= {"skill": [skill.name for skill in skills], "skill_source": [skill.source for skill in skills]}
    if "label" in types:
        values["label"] = [params.classes.index(row.item.label) for row in rows if isinstance(row.item, layouts.DiagnosisItem)]
    values["image_id"] = [next(iter(row.images), None) for row in rows]
    values["image_ids"] = [list(row.images) for row in rows]
    frame = pl.DataFrame({name: lists.column(values[name], kind) for name, kind in types.items()})
    split = pl.Series([row.item.split for row in rows])
    return {name: frame.filter(split == name) for name in paths.SPLITS}


def _with_validation(
    published: dict[str, pl.DataFrame], rows: list[Row], params: Params, dataset: str
) -> tuple[dict[str, pl.DataFrame], Validation]:
    """The official validation split, or one cut from train: group-disjoint, seeded, from every class alike."""
    if published["val"].height:
        return published, Validation("official")
    in_val = pl.col("group_id").is_in(sorted(_cut(rows, params, dataset)))
    splits = {**published, "train": published["train"].filter(~in_val), "val": published["train"].filter(in_val)}
    return splits, Validation("cut from train", params.validation, _stratum(params))


def _cut(rows: list[Row], params: Params, dataset: str) -> set[str]:
    """Groups of train that become the validation split; none where there is an official one."""
    if any(row.item.split == "val" for row in rows):
        return set()
    pairs = [(row.item.group_id, str(getattr(row.item, _stratum(params)))) for row in rows if row.item.split == "train"]
    return layouts.held_out(layouts.strata(pairs), params.validation, f"{params.seed}/{dataset}/val")


def _stratum(params: Params) -> str:
    return tasks.get(params.task).stratum


STAGE = Stage(
    name="prepare",
    keys=("dataset",),
    params=params,
    inputs=index_files,
    outputs=paths.data,
    run=run,
    notes=lambda params, dataset: tasks.doubts(params.task, dataset),
    uses=lambda params: (layouts.module_name(params.layout), *tasks.get(params.task).code("samples", "counts")),
    needs=lambda config, *names: Needs(memory_mb=2000, minutes=240),
    replaced=replaced,
)
