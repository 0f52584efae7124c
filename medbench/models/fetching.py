"""All files of a model onto this disk, as its architecture's own file asks for them, before anything is loaded. Holds no torch itself."""

import hashlib
import importlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import DryRunFileInfo

from medbench.errors import MedbenchError
from medbench.jobs import digests, network
from medbench.models.checkpoint import SMALL_FILES, Checkpoint, Source, inspect
from medbench.models.loading import refusing

TRACKED = False  # parameters say by commit or digest which weights are read
SHA1, SHA256 = 40, 64  # hexadecimal digits: how the hub names a small file, and one of its large file storage


class Size(NamedTuple):
    """Of all files of a model [bytes]: of all, and of those that are not here yet."""

    total: int
    missing: int


class Done(BaseException):
    """What a checkpoint was asked for is known; the architecture's file goes no further."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class _Fetching(Checkpoint):
    """Brings the files, checks them, and loads nothing."""

    def found(self, path: Path) -> None:
        _verify(path, f"checkpoint {self.name}")
        super().found(path)
        raise Done(path)


class _Planning(Checkpoint):
    """Asks the hub what it would bring."""

    def folder(self, safe: Sequence[str] = ("*.safetensors",), pickles: Sequence[str] = ("pytorch_model*.bin",)) -> Path:
        files = network.planned(self.name, self.source.revision, [*SMALL_FILES, *safe])
        if not any(fnmatch(file.filename, name) for file in files for name in safe):
            files = network.planned(self.name, self.source.revision, [*SMALL_FILES, *pickles])
        raise Done(files)


def fetch(source: Source) -> dict[str, Path]:
    """Bring the checkpoint and its companions, or find them in the cache, and check every byte: name -> folder.

    Raises MedbenchError as `Checkpoint.folder`, and for a file that is not what the hub says it is: that one is removed.
    """
    assert source.checkpoint is not None, "a baseline has no checkpoint"
    found = {source.checkpoint: Path(asked(_Fetching(source)))}
    for name, revision in source.companions.items():
        found[name] = network.snapshot(name, revision, SMALL_FILES)
        _verify(found[name], f"repository {name}")
        inspect(found[name])
    return found


def size(source: Source) -> Size | None:
    """What the hub says of the checkpoint, companions (configurations, vocabularies) apart; None for a folder and for an address."""
    if source.checkpoint is None or "://" in source.checkpoint or Path(source.checkpoint).expanduser().is_dir():
        return None
    files: list[DryRunFileInfo] = asked(_Planning(source))
    return Size(sum(file.file_size or 0 for file in files), sum(file.file_size or 0 for file in files if file.will_download))


def asked(checkpoint: Checkpoint) -> Any:
    """What the checkpoint raises as `Done` once the architecture's own file asks for its folder."""
    module = importlib.import_module(checkpoint.source.module)
    try:
        with network.closed(), refusing(f"checkpoint {checkpoint.name}", "does not load", "fetch it again, or change `architecture`"):
            module.load(checkpoint)
    except Done as done:
        return done.value
    raise AssertionError(f"{checkpoint.source.module} asks for no folder")


def _verify(folder: Path, where: str) -> None:
    """The hub's cache names each file by its digest; in other folders nothing says what a file should be."""
    for link in sorted(path for path in folder.rglob("*") if path.is_symlink() and path.is_file()):
        blob = link.resolve()
        if blob.parent.name != "blobs" or len(blob.name) not in (SHA1, SHA256):
            continue
        digest = digests.sha256(blob) if len(blob.name) == SHA256 else _git_sha1(blob)
        if digest != blob.name:
            blob.unlink()
            raise MedbenchError(where, f"{link.relative_to(folder)} is damaged, and is removed", "run again")


def _git_sha1(file: Path) -> str:
    """As git names a file; the hub keeps small ones so."""
    data = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
