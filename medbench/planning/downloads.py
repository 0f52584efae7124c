"""What a run must have on this disk: weights and official files, with size, licence, and whether they are here already."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CacheNotFound, constants, get_token, scan_cache_dir

from medbench import config as configuration
from medbench import paths
from medbench.config import Addresses, Config, Hub, Manual, is_fetched, sources
from medbench.config.needs import weights_mb
from medbench.errors import MedbenchError
from medbench.jobs import archives, files, tree
from medbench.models.checkpoint import COMMIT, WEIGHTS, weight_files

TRACKED = False  # a look ahead is no part of a result

HERE, PART, FETCH, APPLY = "here", "in part", "to fetch", "to apply for"


class Wanted(NamedTuple):
    """`kind`: model or data set; `place`: hub id, address or folder; `bytes`: None where nobody knows; `sized`: how it is known."""

    kind: str
    name: str
    place: str
    bytes: int | None
    sized: str
    licence: str
    access: str
    """open | gated | manual | made here | own."""
    state: str
    """here | in part | to fetch | to apply for."""


def has_token() -> bool:
    """Whether the hub's client finds a token of its user."""
    return bool(get_token())


def wanted(config: Config) -> list[Wanted]:
    """Of every model and data set of the run, those without weights or files left out."""
    models = [_model(config, name) for name in sources.models(config)]
    return [one for one in (*models, *(_dataset(config, name) for name in config.run.datasets)) if one]


def _model(config: Config, name: str) -> Wanted | None:
    entry = config.models[name]
    place = configuration.checkpoint(config, name)
    if entry.kind in ("baseline", "remote") or place is None:
        return None
    licence = entry.about.licence or "licence not stated"
    if entry.pretrain is not None:
        return Wanted("model", name, place, 0, "comes with medbench, or is trained here", licence, "made here", HERE)
    if Path(place).expanduser().is_dir():
        size = sum(file.stat().st_size for file in tree.files_below(Path(place).expanduser()) if file.suffix in WEIGHTS)
        return Wanted("model", name, place, size, "on this disk", licence, "own", HERE)
    state, size = _cached(config, name, place)
    if state == HERE:
        return Wanted("model", name, place, size, "in the cache", licence, "gated" if entry.about.gated else "open", state)
    known = entry.about.parameters is not None
    return Wanted(
        "model",
        name,
        place,
        int(weights_mb(config, name) * 1e6) if known else None,
        "about, by its parameters" if known else "size unknown",
        licence,
        "gated" if entry.about.gated else "open",
        state,
    )


def _cached(config: Config, name: str, place: str) -> tuple[str, int]:
    """Whether the caches hold a checkpoint whole, with its companions, and how many bytes of it."""
    entry = config.models[name]
    if "://" in place:  # medbench.models.contrastive.medclip keeps what its address holds so
        archive = place.rpartition("/")[2]
        digest = hashlib.sha256(f"{place} {entry.checksums.get(archive)}".encode()).hexdigest()[:16]
        file = files.cache() / "checkpoints" / digest / archive
        found = [(HERE, file.stat().st_size if file.exists() else 0) if archives.marker(file).exists() else (FETCH, 0)]
    else:
        found = [_in_hub_cache(place, entry.revision, has_weights=True)]
    found += [_in_hub_cache(one, revision, has_weights=False) for one, revision in entry.companions.items()]
    states = {state for state, _ in found}
    return (states.pop() if len(states) == 1 else PART), sum(size for _, size in found)


def _in_hub_cache(repo: str, revision: str | None, has_weights: bool) -> tuple[str, int]:
    """By the client's own scan of its cache; a snapshot without its weights, or with some of their shards, is there in part."""
    held = _scan().get(repo)
    if held is None:
        return FETCH, 0
    for one in held.revisions:
        if one.commit_hash == revision or (not COMMIT.fullmatch(revision or "") and (revision or "main") in one.refs):
            return (HERE if not has_weights or _is_whole(one) else PART), int(one.size_on_disk)
    return FETCH, 0


def _is_whole(revision: Any) -> bool:
    names = [file.file_name for file in revision.files if Path(file.file_name).suffix in WEIGHTS]
    if names and not any(name.startswith(("model", "pytorch_model")) for name in names):
        return True  # of a layout of its own, as open_clip's
    try:
        return bool(weight_files(revision.snapshot_path))
    except (MedbenchError, OSError):
        return False


@cache
def _scan() -> dict[str, Any]:
    """Model repositories of the hub's cache by their names."""
    try:
        return {repo.repo_id: repo for repo in scan_cache_dir().repos if repo.repo_type == "model"}
    except CacheNotFound:
        return {}


def _dataset(config: Config, name: str) -> Wanted | None:
    entry = config.datasets[name]
    licence = entry.about.licence or "licence not stated"
    if not is_fetched(entry):
        if entry.raw_dir is None:
            return Wanted("data set", name, "drawn", 0, "drawn by medbench", licence, "made here", HERE)
        return Wanted("data set", name, entry.raw_dir, 0, "on this disk", licence, "own", HERE)
    source, folder = entry.source, paths.raw(name)
    place = source.repo if isinstance(source, Hub) else source.apply if isinstance(source, Manual) else _addresses(source)
    access = entry.about.access or ("manual" if isinstance(source, Manual) else "open")
    size, sized = entry.about.download, "by its registry entry" if entry.about.download else "size unknown"
    if isinstance(source, Addresses) and all(file.bytes for file in source.files):
        size, sized = sum(file.bytes or 0 for file in source.files), "by its registry entry"
    if paths.fetched(name).exists() or paths.card(name).exists():
        return Wanted("data set", name, place, size, sized, licence, access, HERE)
    begun = folder.is_dir() and any(folder.iterdir())
    if isinstance(source, Manual):
        return Wanted("data set", name, place, size, sized, licence, access, HERE if begun else APPLY)
    return Wanted("data set", name, place, size, sized, licence, access, PART if begun else FETCH)


def _addresses(source: Any) -> str:
    return ", ".join(file.name for file in source.files)


class Disk(NamedTuple):
    """A disk by a folder on it, bytes that will be written (`unknown` names what has no size, and is not counted), and bytes free."""

    folder: str
    needed: int
    free: int
    unknown: tuple[str, ...]


def disks(config: Config, found: Iterable[Wanted], results: int) -> list[Disk]:
    """Weights into the hub's cache, official files below MEDBENCH_DATA (twice: packed and unpacked), results into this folder."""
    todo = [one for one in found if one.state != HERE]
    of_models, of_data = Path(constants.HF_HUB_CACHE), Path(os.environ.get("MEDBENCH_DATA") or "raw").expanduser()
    needs: dict[int, tuple[str, int, list[str]]] = {}
    for folder, amount, unknown in (
        (Path(), results, []),
        (of_models, sum(one.bytes or 0 for one in todo if one.kind == "model"), _unsized(todo, "model")),
        (of_data, sum(2 * (one.bytes or 0) for one in todo if one.kind == "data set"), _unsized(todo, "data set")),
    ):
        there = _existing(folder)
        name, before, names = needs.get(there.stat().st_dev, (str(there), 0, []))
        needs[there.stat().st_dev] = name, before + amount, [*names, *unknown]
    return [Disk(name, amount, _free(name), tuple(unknown)) for name, amount, unknown in needs.values()]


def _unsized(todo: Iterable[Wanted], kind: str) -> list[str]:
    return [one.name for one in todo if one.kind == kind and one.bytes is None]


def _existing(folder: Path) -> Path:
    """The folder, or what it will be made in."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents, Path("/")) if path.exists())


def _free(folder: str) -> int:
    return shutil.disk_usage(folder).free
