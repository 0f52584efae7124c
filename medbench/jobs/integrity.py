"""Whether results are what their run records say: the digest of every output, what it was made of, and what made it.

A run record holds a SHA-256 of each output and of each input of its job. A start compares cheaply: a file whose size and times are the
recorded ones counts as the recorded one, of any other the digest decides. `python -m medbench verify` reads every byte.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from medbench import paths
from medbench.errors import MedbenchError
from medbench.jobs import digests

TRACKED = False  # compares results, and is no part of one
COMPUTED = "sha256"
"""Key of a job's facts: the digests of outputs that it has computed anyway."""
_LONG = ("modules",)  # thousands of records may be in memory
UNRECORDED = "has no run record with its digest: how it was made is not known"


class Finding(NamedTuple):
    """`kind`: altered (bytes are not the job's), stale (other parameters, code or inputs), unrecorded (nobody knows)."""

    kind: str
    path: Path
    found: str

    def __str__(self) -> str:
        return f"{self.path}: {self.found}"


def of_outputs(outputs: Iterable[Path], computed: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """For a run record, of a job that has just ended: path of each file -> its SHA-256 and stamp. Of a folder, all files in it.

    `computed`: path -> SHA-256 that the job knows: a table of images has many gigabytes.
    """
    known = computed or {}
    return {
        name: {"sha256": known.get(name) or digests.file_digest(file), "stamp": digests.stamp(file)}
        for name, file in ((str(file), file) for file in _files(outputs))
    }


def of_inputs(inputs: Iterable[Path]) -> dict[str, str]:
    """For a run record: path of each file that the job reads -> its SHA-256, as the record of the job that made it has it."""
    found = {}
    for file in _files(inputs):
        made = _recorded(str(file))
        found[str(file)] = made["sha256"] if made and made["stamp"] == digests.stamp(file) else digests.sha256(file)
    return found


def of_folder(folder: Path) -> dict[str, str]:
    """Name of each file in a folder -> its SHA-256."""
    return {file.relative_to(folder).as_posix(): digests.file_digest(file) for file in _inside(folder)}


def require_adapter(cell: str, certificate: Path, folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a cell's adaptation.

    Raises MedbenchError where the certificate is of another cell, or the files are not those that it is about.
    """
    found, remedy = read(certificate), f"delete {certificate.parent} and run again"
    if found is None:
        raise MedbenchError(certificate, "cannot be read as a certificate", remedy)
    if found.get("cell") != cell:
        raise MedbenchError(certificate, f"is of cell {found.get('cell')}, not {cell}", remedy)
    if found.get("failures") != []:
        raise MedbenchError(certificate, "does not say that the adaptation passed", remedy)
    named, there = found.get("files"), of_folder(folder)
    if named != there:
        differing = sorted(name for name in {*there, *(named or {})} if (named or {}).get(name) != there.get(name))
        raise MedbenchError(folder / differing[0], "is not the file that the certificate is about", remedy)
    return there


def inspect(outputs: Sequence[Path], record: Mapping[str, Any] | None, fingerprint: str, exact: bool = False) -> Iterator[Finding]:
    """What is wrong with a job's outputs, the first of which stands for it; nothing where that does not exist, for Snakemake sees that.

    `fingerprint`: of the job as it would run now. `exact`: read every byte, name what is gone, and files that no job wrote.
    """
    main = outputs[0]
    if not main.exists() and not (exact and record):
        return
    if record is None or "outputs" not in record:
        yield Finding("unrecorded", main, UNRECORDED)
        return
    yield from _altered(outputs, record["outputs"], exact)
    if record.get("params") != (now := json.loads(fingerprint)):
        yield Finding("stale", main, f"was made otherwise ({changes(record.get('params'), now)})")
    for path, then in record.get("inputs", {}).items():
        if (made := _recorded(path)) and made["sha256"] != then:
            yield Finding("stale", main, f"was made from another {path}")


def _digest(path: Path, exact: bool) -> str:
    return digests.file_digest(path) if exact else digests.sha256(path)


def altered(output: Path) -> Finding | None:
    """What is wrong with the bytes of one output of a job, a file or a folder, whatever it was made with; None where there is none."""
    if not output.exists():
        return None
    record = read(paths.record_of(output))
    if record is None or "outputs" not in record:
        return Finding("unrecorded", output, UNRECORDED)
    return next(
        _altered([output], {name: then for name, then in record["outputs"].items() if Path(name).is_relative_to(output)}, False), None
    )


def _altered(outputs: Sequence[Path], recorded: Mapping[str, Mapping[str, Any]], exact: bool) -> Iterator[Finding]:
    if not any(Path(name).is_relative_to(outputs[0]) for name in recorded):
        yield Finding("altered", outputs[0], "lies beside the run record of another job")
    for name, then in recorded.items():
        path = Path(name)
        if not path.is_file():
            yield Finding("altered", path, "is gone, but its run record names it")
        elif (exact or digests.stamp(path) != then["stamp"]) and _digest(path, exact) != then["sha256"]:
            yield Finding("altered", path, "is not the file that its job wrote")
    if exact:
        for path in _files(outputs):
            if str(path) not in recorded:
                yield Finding("altered", path, "was written by no job")


def changes(then: Any, now: Mapping[str, Any]) -> str:
    """Of two states of a job's parameters and code, which parts differ: `seed: 0 -> 1; its code changed`."""
    old, new = _flat(then if isinstance(then, dict) else {}), _flat(now)
    return "; ".join(_change(name, old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name))


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, one in value.items():
        found |= _flat(one, f"{prefix}{name}.") if isinstance(one, dict) else {f"{prefix}{name}": one}
    return found


def _change(name: str, old: Any, new: Any) -> str:
    if name == "code":
        return "its code changed"
    name = name.removeprefix("params.")
    both = [text if len(text := json.dumps(value, ensure_ascii=False)) <= 40 else "..." for value in (old, new)]
    return f"{name}: {both[0]} -> {both[1]}" if both != ["...", "..."] else f"{name} changed"


def read(record: Path) -> dict[str, Any] | None:
    """A run record, but for what only people read; None where there is none that can be read."""
    try:
        return _read(record, os.stat(record).st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _read(record: Path, written: int) -> dict[str, Any] | None:
    """`written`: its time, so that another one is read anew."""
    try:
        found = json.loads(record.read_bytes())
    except ValueError:
        return None
    return {name: value for name, value in found.items() if name not in _LONG} if isinstance(found, dict) else None


def _recorded(file: str) -> dict[str, Any] | None:
    """What the record of the job that made a file says of it: `sha256`, `stamp`."""
    if not file.startswith(f"{paths.RESULTS}/"):
        return None
    entry: dict[str, Any] | None = ((read(paths.record_of(file)) or {}).get("outputs") or {}).get(file)
    return entry


def _files(places: Iterable[Path]) -> Iterator[Path]:
    """Files, and those in folders of results; a folder of official files stands for the names in it alone."""
    for place in places:
        if place.is_dir() and place.parts[0] == paths.RESULTS.name:
            yield from _inside(place)
        elif place.is_file():
            yield place


def _inside(folder: Path) -> list[Path]:
    """Without hidden ones: Snakemake's own."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
