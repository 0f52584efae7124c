"""A data set: where its files are, under which licence, how many rows, and whether what was prepared is what `prepare` wrote."""

from collections.abc import Iterator
from pathlib import Path

from medbench import paths, stages, tables, tasks
from medbench.config import Config, Manual, is_fetched, raw_dir, require_layout, sources
from medbench.datasets.card import losses, remarks
from medbench.doctor import FAULT, OK, WARNING, Line, refused
from medbench.errors import MedbenchError
from medbench.jobs import files, tree

TRACKED = False  # looks, and makes no result


def look(config: Config, name: str) -> Iterator[Line]:
    """All that is known without reading an image."""
    entry = config.datasets[name]
    yield Line(OK, "licence", entry.about.licence or "not stated in the registry: yours to know")
    try:
        require_layout(config, name, f"data set {name}")
        yield _files(config, name)
        if not paths.card(name).exists():
            rows = entry.expected
            said = f"; {rows.train:,} / {rows.val:,} / {rows.test:,} rows are expected (train / val / test)" if rows else ""
            yield Line(OK, "prepared", f"not yet{said}; `python -m medbench prepare {name}`, or the run does it")
            return
        yield from _prepared(config, name)
    except MedbenchError as error:
        yield refused(f"data set {name}", error)


def _files(config: Config, name: str) -> Line:
    """Where the raw files are, or how they come."""
    entry = config.datasets[name]
    if entry.about.access == "generated":
        return Line(OK, "files", "drawn when needed: there are none")
    folder = raw_dir(config, name)
    if not is_fetched(entry):
        if folder is None:
            raise MedbenchError(f"data set {name}", "has neither raw_dir nor source", "add `raw_dir: FOLDER` to its entry")
        return _in(Path(folder), "raw_dir")
    place = paths.raw(name)
    if paths.fetched(name).exists() or (place.is_dir() and any(place.iterdir())):
        return _in(place, "fetched" if paths.fetched(name).exists() else "put there, not fetched yet")
    if isinstance(entry.source, Manual):
        found, remedy = sources.application(entry.source.model_dump(), name)
        return Line(FAULT, "files", found, remedy)
    gated = entry.about.access == "gated"
    return Line(
        WARNING if gated else OK, "files", f"not fetched yet, into {place}{'; gated: accept the licence on its page' if gated else ''}"
    )


def _in(folder: Path, how: str) -> Line:
    if not folder.is_dir():
        return Line(FAULT, "files", f"{folder} does not exist ({how})", "put the files there, or change `raw_dir`")
    found = [one for one in tree.files_below(folder) if one.is_file()]
    if not found:
        return Line(FAULT, "files", f"{folder} is empty ({how})", "put the files there, or change `raw_dir`")
    return Line(OK, "files", f"{len(found):,} files, {sum(one.stat().st_size for one in found) / 1e6:,.1f} MB, in {folder} ({how})")


def _prepared(config: Config, name: str) -> Iterator[Line]:
    """The tables against their record, their contract and the registry."""
    task, again = tasks.get(config.datasets[name].task), f"`snakemake --cores all {paths.samples(name, 'train')}` makes it again"
    findings = stages.look(config, "prepare", (name,), exact=True).findings
    for one in findings:
        yield Line(FAULT, "prepared", f"{one.path} {one.found} ({one.kind})", again)
    counts = {split: tables.read(task.samples, paths.samples(name, split)).height for split in paths.SPLITS}
    expected = config.datasets[name].expected
    wanted = expected and {split: getattr(expected, split) for split in paths.SPLITS}
    if not findings:
        rows = " / ".join(f"{count:,}" for count in counts.values())
        yield Line(OK, "prepared", f"{rows} rows (train / val / test){', as published' if wanted == counts else ''}; every byte as written")
    card = files.read_json(paths.card(name))
    try:
        noted = [*remarks(card), *losses(card)]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise MedbenchError(paths.card(name), "is not what `prepare` writes", again) from None
    for line in (*noted, *tasks.doubts(task.name, name)):
        yield Line(WARNING, "note", line)
