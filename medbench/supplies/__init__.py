"""What a run needs from elsewhere, weights and data sets: what it is, how large, under which licence; fetched before the run starts."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants

from medbench import paths, stages
from medbench.config import Addresses, Config, Hub, Manual, checkpoint, is_fetched, require_architecture, sources
from medbench.errors import MedbenchError
from medbench.jobs import network, records, rerun
from medbench.models import fetching
from medbench.models.checkpoint import Source

TRACKED = False  # what is brought is pinned by the registries


class Supply(NamedTuple):
    """One model's weights or one data set's files. `access`: open, gated, manual or own."""

    kind: str  # weights or data
    name: str
    place: str  # repository, addresses, folder or where to apply
    licence: str
    access: str

    @property
    def needs_permission(self) -> bool:
        """Whether it is not anybody's to carry on: gated, applied for, or one's own patients'."""
        return self.access != "open"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def needed(config: Config) -> list[Supply]:
    """Of a run, in its order: the models, judges too, that have a checkpoint, and the data sets that are not generated."""
    found = []
    for name in sources.models(config):
        entry = config.models[name]
        if entry.pretrain is None and (place := checkpoint(config, name)) is not None and entry.kind != "remote":
            access = "gated" if entry.about.gated else "open"
            found.append(Supply("weights", name, _at(place, entry.revision), entry.about.licence or "licence not stated", access))
    for name in config.run.datasets:
        data, source = config.datasets[name], config.datasets[name].source
        if not is_fetched(data) and data.raw_dir is None:
            continue
        access = data.about.access or ("own" if source is None else "manual" if isinstance(source, Manual) else "open")
        if not is_fetched(data):
            place = str(data.raw_dir)
        elif isinstance(source, Hub):
            place = _at(source.repo, source.revision)
        else:
            place = ", ".join(file.name for file in source.files) if isinstance(source, Addresses) else "to be applied for"
        found.append(Supply("data", name, place, data.about.licence or "licence not stated", access))
    return found


def _at(place: str, revision: str | None) -> str:
    return f"{place} at {revision[:12]}" if revision else place


def weights(config: Config, model: str) -> Source:
    """What a job that loads the model would load."""
    require_architecture(config, model, "fetch")
    return Source(**sources.source(config, model))


def size(config: Config, supply: Supply) -> fetching.Size | None:
    """As the hub or the registry says [bytes]; None where neither does. Raises MedbenchError where the hub refuses."""
    if supply.kind == "weights":
        return fetching.size(weights(config, supply.name))
    source = config.datasets[supply.name].source
    if not is_fetched(config.datasets[supply.name]):
        return None
    if isinstance(source, Hub):
        total = sum(file.file_size or 0 for file in network.planned(source.repo, source.revision, [*source.patterns], "dataset"))
        return fetching.Size(total, 0 if paths.fetched(supply.name).exists() else total)
    sizes = [file.bytes for file in source.files] if isinstance(source, Addresses) else []
    if not sizes or None in sizes:
        return None
    total = sum(one or 0 for one in sizes)
    return fetching.Size(total, 0 if paths.fetched(supply.name).exists() else total)


def fetch(config: Config, supply: Supply) -> list[Path]:
    """Bring it, or find it here, and check every byte that has a digest; the folders that hold it.

    Raises MedbenchError for what is refused, missing or damaged; what has arrived stays.
    """
    if supply.kind == "weights":
        return [*fetching.fetch(weights(config, supply.name)).values()]
    data = config.datasets[supply.name]
    if not is_fetched(data):
        from medbench.config import raw_dir

        return [folder for folder in [raw_dir(config, supply.name)] if folder]
    declared, names, started = stages.get("fetch"), (supply.name,), records.process_start()
    params = declared.params(config, *names)
    facts = declared.execute(params, *names)
    used = rerun.libraries(declared.code(params))
    records.write_run_record(
        declared.name, names, declared.outputs(*names), [], used, declared.fingerprint(params), started, {"device": "cpu", **facts}
    )
    return [paths.raw(supply.name)]


def described(config: Config, found: list[Supply]) -> Iterator[str]:
    """A line for each: where it comes from, how large it is, under which licence, and what a person must do first.

    Raises MedbenchError where the disk of the hub's cache has no room for the weights.
    """
    missing = 0
    for supply in found:
        note = supply.access if supply.access in ("open", "own") else _to_do(config, supply)
        try:
            known = None if constants.HF_HUB_OFFLINE else size(config, supply)
            missing += known.missing if known and supply.kind == "weights" else 0
            shown = (f"{amount(known.total)}{'' if known.missing else ', here already'}") if known else "size not known"
        except MedbenchError as error:
            shown, note = "size not known", f"{error.found}; {error.remedy}"
        yield f"  {supply}: {supply.place}; {shown}; {supply.licence}; {note}"
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    if missing > (free := shutil.disk_usage(there).free):
        raise MedbenchError(cache, f"{amount(missing)} of weights are to come, {amount(free)} are free", "make room, or set HF_HOME")


def _to_do(config: Config, supply: Supply) -> str:
    if supply.access == "gated":
        return "gated: accept the licence on its page, then `hf auth login` or HF_TOKEN"
    source = config.datasets[supply.name].source
    return "; ".join(sources.application(source.model_dump(), supply.name)) if isinstance(source, Manual) else supply.access


def amount(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"


def fetch_all(config: Config, chosen: list[Supply] | None = None) -> dict[Supply, list[Path]]:
    """Everything that a run needs, or what is `chosen` of it, each said on standard output; its folders.

    Raises MedbenchError once all has been tried, naming what is missing.
    """
    found, there, failed = needed(config) if chosen is None else chosen, dict[Supply, list[Path]](), list[str]()
    print(f"run {config.run.run} needs {len(found)} things from elsewhere" + (":" if found else ": nothing is to be fetched"))
    for line in described(config, found):
        print(line, flush=True)
    for supply in found:
        try:
            there[supply] = fetch(config, supply)
            print(f"{supply}: here, checked", flush=True)
        except MedbenchError as error:
            failed.append(str(supply))
            print(f"ERROR: {error}", file=sys.stderr, flush=True)
    if failed:
        lacking = f"{', '.join(failed)} {'is' if len(failed) == 1 else 'are'} missing; each line above says why"
        raise MedbenchError(f"run {config.run.run}", lacking, "mend it and give the same command again: what has arrived is kept")
    return there
