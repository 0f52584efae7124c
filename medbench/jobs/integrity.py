"""Whether results are what their run records say: the digest of every output, what it was made of, and what made it.

A run record holds a SHA-256 of each output and of each input of its job. A start compares cheaply: a file whose size, times and inode are
the recorded ones counts as the recorded one, of any other the digest decides. `python -m medbench verify` reads every byte.
"""

import json
import os
import platform
import re
import stat
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
_SHOWN = 3  # changes in a line
_PROMPT = re.compile(r"prompts\.([^.]+)\.(.+)")
_LONG = ("modules",)  # of a record, for people: thousands of records may be in memory


class Finding(NamedTuple):
    """`kind`: altered (bytes are not the job's), stale (other parameters, code or inputs), unrecorded (nobody knows), missing (its record
    is there)."""

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
    """For a run record: path of each file that the job reads -> its SHA-256."""
    return {str(file): sha256 for file in _files(inputs) if (sha256 := _sha256(str(file)))}


def _sha256(file: str) -> str | None:
    """SHA-256 of a file as it is now, by the record of the job that made it where its stamp is that; None where there is no file."""
    try:
        stamp = digests.stamp(file)
    except OSError:
        return None
    made = (read(paths.record_of(file)) or {}).get("outputs", {}).get(file) if file.startswith(f"{paths.RESULTS}/") else None
    return str(made["sha256"]) if made and made["stamp"] == stamp else digests.sha256(Path(file))


def of_folder(folder: Path) -> dict[str, str]:
    """Name of each file in a folder -> its SHA-256."""
    return {file.relative_to(folder).as_posix(): digests.file_digest(file) for file in _inside(folder)}


def require_adapter(cell: str, certificate: Path, folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a cell's adaptation.

    Raises MedbenchError where the certificate is of another cell, or the files are not those that it is about.
    """
    found, remedy = read(certificate) or {}, f"delete {certificate.parent} and run again"
    named, there = found.get("files"), of_folder(folder)
    if not isinstance(named, dict) or not named:
        raise MedbenchError(certificate, "cannot be read as a certificate of weights", remedy)
    if found.get("cell") != cell:
        raise MedbenchError(certificate, f"is of cell {found.get('cell')}, not {cell}", remedy)
    if found.get("failures") != []:
        raise MedbenchError(certificate, "does not say that the adaptation passed", remedy)
    if differing := sorted(name for name in {*there, *named} if named.get(name) != there.get(name)):
        raise MedbenchError(folder / differing[0], "is not the file that the certificate is about", remedy)
    return there


def inspect(outputs: Sequence[Path], fingerprint: str | None, exact: bool = False) -> Iterator[Finding]:
    """What is wrong with a job's outputs, the first of which stands for it; nothing where that does not exist, for Snakemake sees that.

    `fingerprint`: of the job as it would run now; None: whatever made it. `exact`: read every byte, and name what is gone.
    """
    main, place = outputs[0], paths.record_of(outputs[0])
    record = read(place)
    if not main.exists():
        if exact and record:
            yield Finding("missing", main, "is gone, but its run record is there")
        return
    if record is None or "outputs" not in record:
        found = "cannot be read, or holds no digests" if place.exists() else "is missing"
        yield Finding("unrecorded", main, f"its run record {found}: how it was made is not known")
        return
    if not any(_is_in(name, main) for name in record["outputs"]):
        yield Finding("altered", main, "lies beside the run record of another job")
        return
    own = {name: then for name, then in record["outputs"].items() if any(_is_in(name, output) for output in outputs)}
    for name, then in own.items():
        if not os.path.isfile(name):
            yield Finding("altered", Path(name), "is gone, but its run record names it")
        elif (digests.file_digest(Path(name)) if exact else _unless_same(name, then)) != then["sha256"]:
            yield Finding("altered", Path(name), "is not the file that its job wrote")
    for path in _files(outputs):
        if str(path) not in own:
            yield Finding("altered", path, "was written by no job")
    if fingerprint is None:
        return
    if changed := _changes(record, json.loads(fingerprint)):
        yield Finding("stale", main, f"was made otherwise ({changed})")
    for path, then in record.get("inputs", {}).items():
        if (now := _sha256(path)) and now != then:
            yield Finding("stale", main, f"was made from another {path}")


def _is_in(name: str, place: Path) -> bool:
    """Whether a file is an output, or lies in one; by text, which is quicker than `Path` for the thousands of a start."""
    return name == str(place) or name.startswith(f"{place}{os.sep}")


def _unless_same(name: str, then: Mapping[str, Any]) -> str:
    return str(then["sha256"]) if digests.stamp(name) == then["stamp"] else digests.sha256(Path(name))


def _changes(record: Mapping[str, Any], now: dict[str, Any]) -> str:
    """How a job would differ from the recorded one; empty where it would not.

    Code is written out by Python, each minor version in its own way: what another one made is compared by its parameters.
    """
    then = record.get("params")
    if not isinstance(then, dict):
        return "its parameters are not known"
    if _minor(record) != _minor({"versions": {"python": platform.python_version()}}):
        then, now = ({**one, "code": ""} for one in (then, now))
    return "" if then == now else changes(then, now) or "its parameters changed"


def _minor(record: Mapping[str, Any]) -> list[str]:
    return str(dict(record.get("versions") or {}).get("python")).split(".")[:2]


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Of two states of a job's parameters and code, which parts differ: `seed: 0 -> 1; its code changed`."""
    old, new = _flat(then), _flat(now)
    differing = sorted((name for name in {**old, **new} if old.get(name) != new.get(name)), key="code".__eq__)  # code last
    found = [_change(name, old.get(name), new.get(name)) for name in differing]
    return "; ".join(found[:_SHOWN]) + (f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, one in value.items():
        found |= _flat(one, f"{prefix}{name}.") if isinstance(one, dict) else {f"{prefix}{name}": one}
    return found


def _change(name: str, old: Any, new: Any) -> str:
    if name == "code":
        return "its code changed"
    name = name.removeprefix("params.")
    if prompt := _PROMPT.fullmatch(name):
        name = f"prompt of class {prompt[2]} (set {prompt[1]})"
    both = [text if len(text := json.dumps(value, ensure_ascii=False)) <= 40 else "..." for value in (old, new)]
    return f"{name}: {both[0]} -> {both[1]}" if both != ["...", "..."] else f"{name} changed"


def read(record: Path) -> dict[str, Any] | None:
    """A run record, but for what only people read, or a certificate; None where there is none that can be read."""
    try:
        found = os.stat(record)
    except OSError:
        return None
    return _read(record, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


@lru_cache(maxsize=4096)
def _read(record: Path, written: int) -> dict[str, Any] | None:
    """`written`: its time, so that another one is read anew."""
    try:
        found = json.loads(record.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return {name: value for name, value in found.items() if name not in _LONG} if _is_record(found) else None


def _is_record(found: Any) -> bool:
    """Whether what others rely on has its shape, where it is there."""
    if not isinstance(found, dict):
        return False
    outputs, inputs = found.get("outputs", {}), found.get("inputs", {})
    entries = isinstance(outputs, dict) and all(isinstance(one, dict) and {"sha256", "stamp"} <= set(one) for one in outputs.values())
    return entries and isinstance(inputs, dict) and all(isinstance(one, str) for one in inputs.values())


def _files(places: Iterable[Path]) -> Iterator[Path]:
    """Files, and those in folders of results; a folder of official files stands for the names in it alone."""
    for place in places:
        if os.path.isfile(place):
            yield place
        elif place.parts[:1] == (paths.RESULTS.name,):
            yield from _inside(place)


def _inside(folder: Path) -> list[Path]:
    """Without hidden ones: Snakemake's own."""
    found = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names if not name.startswith("."))
    return sorted(Path(file) for file in found if os.path.isfile(file))
