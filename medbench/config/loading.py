"""From files to a validated configuration, and back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from medbench.config.complaints import one_line
from medbench.config.datasets import Dataset
from medbench.config.models import Model
from medbench.config.modes import ModeEntry
from medbench.config.reading import check_values, read_yaml, registry_file
from medbench.config.resolved import Config
from medbench.config.runs import Registries, Run
from medbench.config.selection import check_modalities, check_selection
from medbench.config.strict import Strict, require_slug
from medbench.config.templates import Asking
from medbench.errors import MedbenchError
from medbench.jobs import digests, limits

TRACKED = False  # what is decided here reaches a job by its parameters


def load(run: Mapping[str, Any], root: Path, source: str = "configuration") -> Config:
    """Validate a merged run configuration (a mapping) and the registries under `root`.

    Raises MedbenchError: one line that names file, key, the value found and the remedy.
    """
    check_values(run, source)
    try:
        checked = Run.model_validate(dict(run))
    except ValidationError as error:
        raise one_line(source, error) from None
    places = checked.registries
    config = Config(
        checked,
        _registry(root, places, "models", "model", Model),
        _registry(root, places, "datasets", "data set", Dataset),
        _registry(root, places, "modes", "mode", ModeEntry),
        _asking(root, places),
        {},
    )
    check_selection(config, source)
    check_modalities(config)
    return config


def dump(config: Config) -> dict[str, Any]:
    """The whole configuration as JSON-able values, defaults filled in; `from_resolved` reads it back."""
    parts: dict[str, Any] = {"run": config.run.model_dump(mode="json")}
    for name in ("models", "datasets", "modes"):
        parts[name] = {slug: entry.model_dump(mode="json") for slug, entry in getattr(config, name).items()}
    parts |= {"asking": config.asking.model_dump(mode="json"), "left_out": dict(config.left_out)}
    return parts


def from_resolved(path: Path) -> Config:
    """The configuration that a start of the workflow wrote with `dump`, under its digest. Raises MedbenchError for another text."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise MedbenchError(path, "is gone", "give the same command again: every start writes it") from None
    if digests.digest(text) != path.stem:
        raise MedbenchError(path, "was changed or cut after this start wrote it", "give the same command again: every start writes it anew")
    parts = json.loads(text)
    return Config(
        Run.model_validate(parts["run"]),
        {slug: Model.model_validate(entry) for slug, entry in parts["models"].items()},
        {slug: Dataset.model_validate(entry) for slug, entry in parts["datasets"].items()},
        {slug: ModeEntry.model_validate({"entry": entry}).entry for slug, entry in parts["modes"].items()},
        Asking.model_validate(parts["asking"]),
        {},
        parts["left_out"],
    )


def from_files(paths: list[Path], root: Path) -> Config:
    """As Snakemake does it: later files win, lists are replaced, dictionaries merged at any depth."""
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merged(merged, read_yaml(path, str(path)))
    return load(merged, root, ", ".join(map(str, paths)))


def _merged(below: Any, above: dict[str, Any]) -> dict[str, Any]:
    found = dict(below) if isinstance(below, dict) else {}
    for key, value in above.items():
        found[key] = _merged(found.get(key), value) if isinstance(value, dict) else value
    return found


def _read(root: Path, places: Registries, kind: str) -> dict[str, tuple[str, Any]]:
    """Key -> file that says it, and its value: what comes with medbench, and over it what a file of one's own says."""
    shipped, own = Registries.model_fields[kind].default, getattr(places, kind)
    found = {key: (shipped, value) for key, value in read_yaml(root / shipped, shipped).items()}
    if own != shipped:
        found |= {key: (own, value) for key, value in read_yaml(registry_file(root, own), own).items()}
    return found


def _registry(root: Path, places: Registries, kind: str, word: str, schema: type[Any]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for slug, (name, value) in _read(root, places, kind).items():
        where = f"{name}: {word} {slug}"
        try:
            require_slug(slug if isinstance(slug, str) else "")
        except ValueError:
            remedy = f"use lower-case letters, digits, dots and dashes, at most {limits.NAME}"
            raise MedbenchError(where[: limits.QUOTED], "invalid name", remedy) from None
        try:
            if schema is ModeEntry:
                entries[slug] = ModeEntry.model_validate({"entry": value}).entry
            else:
                entries[slug] = schema.model_validate(value)
        except ValidationError as error:
            raise one_line(where, error) from None
    return entries


def _asking(root: Path, places: Registries) -> Asking:
    try:
        return Asking.model_validate({key: value for key, (_, value) in _read(root, places, "templates").items()})
    except ValidationError as error:
        raise one_line(places.templates, error) from None


def require_whole(files: Sequence[Path], also: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Raise MedbenchError for run files that leave to the demo what a run is: its report would be written over.

    `also`: keys that the command line gives.
    """
    files = [file for file in files if Path(file).stem != "now"]
    given = {**also, **{key: None for file in files for key in read_yaml(Path(file), str(file))}}
    needed = ("run", "models", "datasets", "modes")
    if files and (absent := [key for key in needed if key not in given]):
        found = f"says no {', '.join(absent)}, which would be those of the demo in config/config.yaml"
        raise MedbenchError(", ".join(map(str, files)), found, f"give {', '.join(needed)}, or name that file before it")


def schema() -> str:
    """JSON schema of registries and runs, for editors: `config/schema.json`."""
    parts: dict[str, type[Strict]] = {"run": Run, "model": Model, "dataset": Dataset, "mode": ModeEntry, "templates": Asking}
    return json.dumps({name: part.model_json_schema() for name, part in parts.items()}, indent=1, sort_keys=True) + "\n"
