"""Official files onto the disk: from the hub or by address, resumed, verified, unpacked only inside their folder.

What has arrived stays when a download breaks off, and another try goes on from it. A file that is not what its checksum says is removed.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import requests
from huggingface_hub import HfApi, RepoFile, constants

from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import addresses, files, network
from medbench.jobs.archives import marker, unpack
from medbench.jobs.progress import track

ATTEMPTS = 5
WAIT_SECONDS = 2.0  # before the second attempt; twice as long before each further one
TIMEOUT_SECONDS = (15.0, 60.0)  # to connect; without a byte
MEMORY = ".medbench.json"
"""In a folder of hub files: their commit and digests, so that they stay pinned when `results/` is deleted."""
CHUNK = 2**16  # what a break may cost


class Fetched(NamedTuple):
    """What came: the hub's commit, where there is one, and the digest of each file as `algorithm:hex` (None: not computed)."""

    revision: str | None
    files: dict[str, str | None]


# --- the hub


def from_hub(source: dict[str, Any], folder: Path, where: str) -> Fetched:
    """All files of a hub data set that match, at its pinned revision; without one at that of the first fetch, which the folder remembers.

    Offline: what the folder holds, when all of it is there and whole, else what the hub's own cache holds.
    """
    known = _remembered(folder, source)
    if constants.HF_HUB_OFFLINE:
        found = known or _from_cache(source, folder)
    else:
        found = _from_network(source, folder, source["revision"] or (known and known.revision), where)
    for name, checksum in found.files.items():
        if not (folder / name).is_file():
            raise MedbenchError(where, f"{name} is missing in {folder}", "connect once and run again")
        if checksum is not None:
            verify(folder / name, checksum, where)
    for name, target in source["unpack"].items():
        if name not in found.files:
            raise MedbenchError(where, f"`unpack` names {name}, which is not among the files fetched", "fix `source` of the entry")
        unpack(folder / name, folder / target, where, keep=True)
    return found


def _from_network(source: dict[str, Any], folder: Path, revision: str | None, where: str) -> Fetched:
    repo, patterns = source["repo"], list(source["patterns"])
    with network.errors(repo, revision, "dataset"):
        commit = HfApi().dataset_info(repo, revision=revision).sha
        tree = list(HfApi().list_repo_tree(repo, recursive=True, revision=commit, repo_type="dataset"))
    wanted = [entry for entry in tree if isinstance(entry, RepoFile) and _fits(entry.path, patterns)]
    if not wanted:
        found = f"the hub's {repo} holds no file that matches {', '.join(patterns)}"
        raise MedbenchError(where, found, "fix `source.patterns` of the entry")
    network.snapshot(repo, commit, patterns, "dataset", folder)
    fetched = Fetched(commit, {entry.path: f"sha256:{entry.lfs.sha256}" if entry.lfs else None for entry in wanted})
    with files.atomic(folder / MEMORY) as aside:
        aside.write_text(json.dumps({"repo": repo, "patterns": patterns, **fetched._asdict()}, indent=1), encoding="utf-8")
    return fetched


def _remembered(folder: Path, source: dict[str, Any]) -> Fetched | None:
    """What an earlier fetch of the same files found, whatever became of `results/`; None where its note cannot be read."""
    try:
        found = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
        same = (found["repo"], found["patterns"]) == (source["repo"], list(source["patterns"]))
        digests = {str(name): None if digest is None else str(digest) for name, digest in found["files"].items()}
        return Fetched(found["revision"], digests) if same and source["revision"] in (None, found["revision"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _from_cache(source: dict[str, Any], folder: Path) -> Fetched:
    """Copies of what the hub's client has in its cache."""
    snapshot = network.snapshot(source["repo"], source["revision"], list(source["patterns"]), "dataset")
    names = [path.relative_to(snapshot).as_posix() for path in sorted(snapshot.rglob("*")) if path.is_file()]
    wanted = [name for name in names if _fits(name, source["patterns"])]
    for name in wanted:
        with files.atomic(folder / name) as aside:
            shutil.copyfile(snapshot / name, aside)
    return Fetched(snapshot.name, {name: f"sha256:{pooch.file_hash(str(folder / name))}" for name in wanted})


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


# --- by address


def from_addresses(source: dict[str, Any], folder: Path, where: str) -> Fetched:
    """Each file by its address, then unpacked where the entry says so."""
    files: dict[str, str | None] = {}
    for file in source["files"]:
        path = folder / file["name"]
        files[file["name"]] = file["checksum"]
        if file["unpack"] is None or not marker(path).exists():
            download(file["url"], path, file["checksum"], file["bytes"], where, file["enforce"])
            algorithm = (file["checksum"] or "sha256:").partition(":")[0]
            files[file["name"]] = f"{algorithm}:{pooch.file_hash(str(path), algorithm)}"  # what came, not what was expected
        if file["unpack"] is not None:
            unpack(path, folder / file["unpack"], where)
    return Fetched(None, files)


def download(url: str, path: Path, checksum: str | None, size: int | None, where: str, enforce: bool = True) -> None:
    """One file: what lies in `{name}.part` is kept and continued.

    Raises Interrupted when it breaks off `ATTEMPTS` times in a row without a byte of progress, MedbenchError when the server refuses it
    or it is not what its size or checksum say (`enforce` false: a warning).
    """
    if kind := files.irregular(path):
        raise MedbenchError(where, f"{path} is {kind}, not a file", "remove it, so that the file is fetched")
    if path.exists():  # of an earlier start, or put there by hand
        if checksum and enforce and not matches(path, checksum):
            raise MedbenchError(where, f"{path} is not {checksum}", "remove it, so that it is fetched anew")
        return
    part = path.with_name(f"{path.name}.part")

    def resumed(url: str, output: Any, pooch: Any) -> None:
        _complete(url, part, where)
        if size is not None and (came := part.stat().st_size) != size:
            part.unlink()
            raise MedbenchError(
                where, f"{path.name} has {came} bytes, {size} are expected", "run again; if it stays so, its address is stale"
            )
        os.replace(part, output)

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        pooch.retrieve(url, checksum if enforce else None, path.name, path.parent, downloader=resumed)
    except ValueError as error:  # pooch removes the file
        raise MedbenchError(
            where, f"{path.name} arrived damaged, and is removed ({addresses.masked(error, url)[:200]})", "run again"
        ) from None
    if checksum and not enforce and not matches(path, checksum):
        print(f"WARNING: {where}: {path.name} is not {checksum}: it may be a newer version", file=sys.stderr)


def _complete(url: str, part: Path, where: str) -> None:
    failures, waited = 0, WAIT_SECONDS
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue(url, part, where)
            return
        except (requests.RequestException, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, requests.RequestException | ConnectionError | TimeoutError):
                raise  # the disk, not the network
            progressed = part.exists() and part.stat().st_size > before
            failures, waited = (0, WAIT_SECONDS) if progressed else (failures + 1, waited * 2)
            if failures >= ATTEMPTS:
                found = f"{part.stem}: the download broke off ({type(error).__name__}: {addresses.masked(error, url)[:120]})"
                raise Interrupted(where, found, "run again: what has arrived is kept") from None
            time.sleep(waited)


def _continue(url: str, part: Path, where: str) -> None:
    """Append what is missing. Raises a ConnectionError when the server ends early."""
    begun = part.stat().st_size if part.exists() else 0
    address = addresses.expanded(url, where)
    with requests.get(address, headers={"Range": f"bytes={begun}-"} if begun else {}, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable and _total(answer) == begun:
            return  # it was whole already
        if answer.status_code in (401, 403, 404, 410):
            raise MedbenchError(
                where, f"{url} answers {answer.status_code}", "open it in a browser; fetch the file by hand, or set raw_dir"
            )
        answer.raise_for_status()
        resumed = answer.status_code == requests.codes.partial_content
        length = answer.headers.get("Content-Length")
        with part.open("ab" if resumed else "wb") as stream:
            chunks = track(answer.iter_content(CHUNK), f"fetch {part.stem}, bytes", begun + int(length or 0), begun if resumed else 0, len)
            got = sum(stream.write(chunk) for chunk in chunks)
    if length is not None and answer.headers.get("Content-Encoding") is None and got < int(length):
        raise ConnectionError(f"{got} of {length} bytes came")


def _total(answer: requests.Response) -> int | None:
    """Of a Content-Range: `bytes */1234`."""
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def verify(path: Path, checksum: str, where: str) -> None:
    """Raise MedbenchError, and remove the file, when it has not the digest `algorithm:hex`."""
    if not matches(path, checksum):
        path.unlink()
        raise MedbenchError(where, f"{path.name} arrived damaged, and is removed", "run again")


def matches(path: Path, checksum: str) -> bool:
    """Whether a file has the digest `algorithm:hex`."""
    algorithm, _, expected = checksum.partition(":")
    return bool(pooch.file_hash(str(path), algorithm) == expected)
