"""Where a model's weights come from, as the registry pins them, and what was really found there. Needs no torch.

A *checkpoint* is a repository of the hub, a folder, or (MedCLIP) the address of a zip. Some name a second repository in their
configuration (a text tower, a tokenizer): a *companion*. Weights are pinned by the hub's commit, by checksums of files, or by the
digest of a folder; what was loaded goes into run records and adapters, and what differs from the pin is refused.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medbench.errors import MedbenchError
from medbench.jobs import digests, limits, tree

TRACKED = False  # parameters say by commit or digest which weights are read

COMMIT = re.compile(r"[0-9a-f]{40}")
SAFETENSORS, PICKLES = ("model.safetensors",), ("pytorch_model.bin",)
WEIGHTS = frozenset((".safetensors", ".bin"))
"""Endings of files of weights."""
MAIN = "checkpoint"
"""Key of the checkpoint itself among what was loaded; companions stand under their names."""
SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_INDEX = ".index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
CODE = frozenset(("auto_map", "custom_generate", "custom_pipelines"))
"""Keys by which a configuration names code that comes with the weights. No model of the study needs any."""
_MAYBE_CODE = re.compile(rb"auto_map|custom_|\\u00(5[fF]|[67][0-9a-fA-F])")  # or letters written as numbers
_REPEATED = re.compile(r"(.*_)?(num|layers?|depths?|blocks?|heads?|experts?|image_seq|extra)(_.*)?")
_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


class Source(NamedTuple):
    """Which model a job loads, by its architecture's module, and how."""

    module: str
    checkpoint: str | None  # hub id, folder or address; None for a baseline
    revision: str | None = None  # commit, branch or tag of a hub id
    batch_size: int = 64  # of images that are only encoded
    bits: int | None = None  # of a generative model's weights, 4 or 8; None: the numbers of the checkpoint
    processor: Mapping[str, Any] = {}  # fields of a generative model's image processor that differ from its own
    options: Mapping[str, Any] = {}  # of a remote model, as its file reads them
    companions: Mapping[str, str | None] = {}  # second repositories -> commit
    checksums: Mapping[str, str] = {}  # file -> SHA-256
    digest: str | None = None  # of a folder of weights, when the workflow started: replaced weights are another source


class Checkpoint:
    """The files of a source, found or downloaded, checked against their pins; `loaded` says what they were."""

    def __init__(self, source: Source) -> None:
        assert source.checkpoint is not None, "a baseline has no checkpoint"
        self.source, self.name = source, source.checkpoint
        self.loaded: dict[str, str] = {}

    def folder(self, safe: Sequence[str] = ("*.safetensors",), pickles: Sequence[str] = ("pytorch_model*.bin",)) -> Path:
        """The folder itself, or the hub's snapshot in the local cache, downloaded if it must be.

        `safe`, `pickles`: patterns of weights; pickles are fetched only where there is none of the safe files.
        Raises MedbenchError when there is no such folder, repository or revision, access is refused, or the files are others than pinned.
        """
        path = Path(self.name).expanduser()
        if not path.is_dir():
            if self.name.count("/") != 1 or self.name.startswith((".", "/", "~")):
                raise MedbenchError(f"checkpoint {self.name}", "the folder does not exist", "give a folder or a hub id `owner/name`")
            from medbench.jobs import network

            path = network.snapshot(self.name, self.source.revision, [*SMALL_FILES, *safe])
            if not any(next(path.glob(name), None) for name in safe):
                path = network.snapshot(self.name, self.source.revision, [*SMALL_FILES, *pickles])
        self.found(path)
        return path

    def found(self, path: Path) -> None:
        """Note what a folder holds, once it is what the registry pins. Raises MedbenchError where it is not, or as `inspect` does."""
        inspect(path)
        self.loaded[MAIN] = _identity(path, self.source.revision, f"checkpoint {self.name}")
        for name, expected in self.source.checksums.items():
            if Path(name).suffix in digests.READ:  # an archive is checked when it is downloaded, and does not stay
                _verify(path / name, expected)

    def companion(self, named: str, path: Path, files: Sequence[str]) -> Path:
        """Folder of a second repository that the configuration in `path` names: inside that folder, or of the hub.

        Raises MedbenchError for one that the registry's entry does not name: a configuration chooses no code, weights or words by itself.
        """
        if not isinstance(named, str) or not _NAME.fullmatch(named) or ".." in named:
            found = f"its configuration names {str(named)[:80]!r}, which is no repository"
            raise MedbenchError(path, found, "give `owner/name`, or a folder in it")
        if _is_file(path / named / files[0]):
            inspect(path / named)
            return path / named
        if named not in self.source.companions:
            remedy = f"add `companions: {{{named}: <commit>}}` to the model's entry, or put its files into {path / named}"
            raise MedbenchError(path, f"its configuration names {named}, which the registry does not", remedy)
        from medbench.jobs import network

        revision = self.source.companions[named]
        folder = network.snapshot(named, revision, list(files))
        inspect(folder)
        self.loaded[named] = _identity(folder, revision, f"repository {named}")
        return folder


def inspect(folder: Path) -> None:
    """Raise MedbenchError for a folder that names code of its own, or sizes beyond all reason, in any JSON file at any depth.

    One place for all loaders, and before any of them: transformers would ask on standard input whether to run the code.
    """
    for file in tree.files_below(folder, tree.is_hidden):
        if file.suffix != ".json" or not file.is_file():
            continue
        if file.name.endswith("config.json"):
            read_json(file)
        elif file.stat().st_size <= limits.JSON_BYTES and _MAYBE_CODE.search(data := file.read_bytes()):
            with contextlib.suppress(ValueError, RecursionError):  # what is no JSON, no loader reads
                json.loads(data)
                json.loads(data, object_hook=lambda fields: _without_code(file, fields))  # noqa: B023 - called at once
    if (code := folder / "custom_generate").exists():
        raise _has_code(code, "generate.py")
    if (adapter := folder / "adapter_config.json").exists():
        raise MedbenchError(adapter, "makes transformers put an adapter into other weights", "give a checkpoint with its adapter merged")


def read_json(file: Path) -> dict[str, Any]:
    """The fields of one of a checkpoint's JSON files.

    Raises MedbenchError for one that is absent, cut off, too large, nested too deeply or no object, for one that names code, and for a
    configuration with more layers, heads or experts than any model has.
    """
    try:
        if (size := file.stat().st_size) > limits.JSON_BYTES:
            raise MedbenchError(file, f"has {size} bytes, more than the {limits.JSON_BYTES} that are read", "fetch it again")
        found = json.loads(file.read_text(encoding="utf-8"), object_hook=lambda fields: _without_code(file, fields))
    except FileNotFoundError:
        raise MedbenchError(file, "the file does not exist", "fetch the whole checkpoint") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:120]
        raise MedbenchError(file, f"is no readable JSON ({reason})", "fetch it again") from None
    if not isinstance(found, dict):
        raise MedbenchError(file, f"holds a {type(found).__name__}, not fields by name", "fetch it again")
    return found


def _without_code(file: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Of one object, at any depth. A number is no code: in a vocabulary these may be words."""
    for name, value in fields.items():
        if name in CODE and value and not isinstance(value, int | float):
            raise _has_code(file, f"{name} {value!r:.80}")
        if file.name.endswith("config.json") and _REPEATED.fullmatch(name):
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and abs(number) > limits.REPEATED:
                    raise MedbenchError(file, f"has {name} {str(number)[:40]}, more than {limits.REPEATED}", "fetch it again")
    return fields


def _has_code(file: Path, found: str) -> MedbenchError:
    remedy = "give a checkpoint that transformers loads by itself, or remove it from the file if the weights need no code"
    return MedbenchError(file, f"names code of its own ({found}), which medbench never runs", remedy)


def _is_file(path: Path) -> bool:
    """False for a name that no disk takes."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_pinned(name: str, revision: str | None, checksums: Mapping[str, str]) -> bool:
    """Whether the same files come tomorrow: a commit, a checksum of a file by address, or a folder, whose digest is tracked."""
    if Path(name).expanduser().is_dir():
        return True
    return name.rpartition("/")[2] in checksums if "://" in name else bool(revision and COMMIT.fullmatch(revision))


def require_weights(adapter: Path, trained_on: Mapping[str, str], loaded: Mapping[str, str]) -> None:
    """Raise MedbenchError when an adapter was trained on other weights than those it is put into: shapes alone would let it pass."""
    for name in sorted({*trained_on, *loaded}):
        if trained_on.get(name) != loaded.get(name):
            found = f"was trained on {name} {trained_on.get(name)}, and this is {loaded.get(name)}"
            raise MedbenchError(adapter, found, "delete it and run `adapt` again")


def _identity(path: Path, revision: str | None, where: str) -> str:
    """`commit HEX` of a snapshot of the hub, `sha256 HEX` of any other folder. Raises MedbenchError for another commit than `revision`."""
    commit = _commit(path)
    if commit and revision and COMMIT.fullmatch(revision) and commit != revision:
        raise MedbenchError(where, f"{path} holds commit {commit}, the registry pins {revision}", "fetch that one, or change `revision`")
    return f"commit {commit}" if commit and path.parent.name == "snapshots" else f"sha256 {digests.tree(path)}"


def _commit(path: Path) -> str | None:
    """Of the hub, as its client leaves it in its cache, and in a folder that it downloaded to."""
    if path.parent.name == "snapshots" and COMMIT.fullmatch(path.name):
        return path.name
    for note in sorted((path / ".cache" / "huggingface" / "download").glob("*.metadata")):
        first = note.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
        if COMMIT.fullmatch(first):
            return first
    return None


def _verify(file: Path, expected: str) -> None:
    if not file.is_file():
        raise MedbenchError(file, "is absent; the registry pins its checksum", "fetch the whole checkpoint")
    if (found := digests.sha256(file)) != expected:
        raise MedbenchError(file, f"has the SHA-256 {found}, the registry pins {expected}", "fetch it again, or change `checksums`")


def weight_files(folder: Path, safe: Sequence[str] = SAFETENSORS, pickles: Sequence[str] = PICKLES) -> list[Path]:
    """The files that hold a checkpoint's weights: one, or all shards; safetensors before pickles.

    Raises MedbenchError when there is none, when a shard is absent, and for safetensors that are cut off.
    """
    for name in (*safe, *pickles):
        file = folder / name
        shards = [file] if file.is_file() else _indexed(folder / f"{name}{_INDEX}") or _numbered(folder, name)
        if shards:
            for shard in shards:
                if shard.suffix == ".safetensors":
                    _check_length(shard)
            return shards
    raise MedbenchError(folder, "holds no weights", f"put {' or '.join((*safe, *pickles))} there")


def _indexed(index: Path) -> list[Path]:
    """Shards that an index names; none where there is no index."""
    if not index.is_file():
        return []
    try:
        fields = read_json(index).get("weight_map")
    except MedbenchError as error:
        raise MedbenchError(index, f"is no readable index of shards: it {error.found}", error.remedy) from None
    if not isinstance(fields, dict) or not fields or not all(isinstance(name, str) for name in fields.values()):
        raise MedbenchError(index, "is no readable index of shards", "fetch the whole checkpoint")
    named = sorted(set(fields.values()))
    if len(named) > limits.SHARDS:
        raise MedbenchError(index, f"names {len(named)} shards, more than {limits.SHARDS}", "fetch the whole checkpoint")
    if outside := [name for name in named if name != Path(name).name or "\0" in name or not _is_inside(index.parent / name)]:
        raise MedbenchError(index, f"names {outside[0][:80]!r}, which is not in its folder", "fetch the checkpoint anew")
    if absent := [name for name in named if not _is_file(index.parent / name)]:
        found = f"names {len(named)} shards, {len(named) - len(absent)} are there, {absent[0][:80]} is absent"
        raise MedbenchError(index, found, "fetch the whole checkpoint")
    return [index.parent / name for name in named]


def _is_inside(file: Path) -> bool:
    """Whether a file stays in its folder when links are followed. The hub's client links into the blobs of its cache."""
    try:
        found = file.resolve()
    except (OSError, RuntimeError):  # links in a circle, or a name that is too long
        return False
    return found.parent == file.parent.resolve() or found.parent.name == "blobs"


def _numbered(folder: Path, name: str) -> list[Path]:
    """Shards without an index, by their numbers (`model-00001-of-00002.safetensors`)."""
    stem, _, suffix = name.rpartition(".")
    shards = sorted(folder.glob(f"{stem}-?????-of-?????.{suffix}"))
    parts = [match for shard in shards if (match := _SHARD.fullmatch(shard.name))]
    if parts and len(parts) != int(parts[0][3]):
        raise MedbenchError(folder, f"holds {len(parts)} of {int(parts[0][3])} shards ({shards[0].name})", "fetch the whole checkpoint")
    return shards


def _check_length(file: Path) -> None:
    """Raise MedbenchError when a safetensors file is shorter or longer than its header says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > size:
            raise MedbenchError(file, f"has {size} bytes, fewer than its header", "fetch it again")
        if length > limits.HEADER_BYTES:
            raise MedbenchError(file, f"has a header of {length} bytes, more than {limits.HEADER_BYTES}", "fetch it again")
        try:
            header = json.loads(stream.read(length))
            expected = 8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise MedbenchError(file, "holds no readable header of safetensors", "fetch it again") from None
    if size != expected:
        raise MedbenchError(file, f"has {size} bytes, its header promises {expected}", "fetch it again")
