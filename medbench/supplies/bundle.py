"""A run with its weights and data as one tar, to be carried to a site without a network.

All lies in one folder `bundles/RUN`, so that plain `tar -xf` in a clone unpacks it too, and `sha256sum -c` checks it:

- `run.yaml` and registries with the run's own entries, in which every model has its commit;
- `hub/`: the cache of the hub's client with these commits alone; `cache/`: weights by address and folders of weights; `data/`;
- `env.sh`: the variables that point there; `README.txt`; `SHA256SUMS`, which comes last and says that the file is whole.

No token is in it: only what these folders hold is packed. Keys in addresses stand as `${NAME}` in the registries.
"""

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import yaml

from medbench import paths
from medbench.config import Config, Dataset, is_fetched, sources
from medbench.datasets import layouts
from medbench.datasets.layouts import Source
from medbench.errors import MedbenchError, choose
from medbench.jobs import digests, files, tree
from medbench.models.checkpoint import COMMIT
from medbench.supplies import Supply

TRACKED = False
FOLDER = Path("bundles")
SUMS = "SHA256SUMS"
CHUNK = 2**20
LEFT_OUT = (".cache", ".git", "__pycache__")
ENVIRONMENT = """\
# . {folder}/env.sh    (from the folder of the clone)
export HF_HUB_OFFLINE=1 HF_HUB_CACHE="$PWD/{folder}/hub" MEDBENCH_CACHE="$PWD/{folder}/cache" MEDBENCH_DATA="$PWD/{folder}/data"
"""
README = """\
Run {run} of medbench, with its weights and data. In a clone of medbench whose environment is installed (without a network: from wheels
that were carried there too):

    python -m medbench unbundle {tar}      # checks every file; or: tar -xf {tar} && (cd {folder} && sha256sum -c SHA256SUMS)
    . {folder}/env.sh
    snakemake --cores all --configfile {folder}/run.yaml

Licences:
{licences}
"""


class Member(NamedTuple):
    """A file of the bundle, by its path below `bundles/RUN`; `content`: a file of this disk, or a text."""

    path: str
    content: Path | str


def require_permission(found: Iterable[Supply], included: Sequence[str], left_out: Sequence[str]) -> list[Supply]:
    """What is packed. Raises MedbenchError for what only its licence, or a hospital, may let go, until somebody says so by name."""
    supplies = list(found)
    names = [supply.name for supply in supplies]
    for flag, given in (("--include", included), ("--without", left_out)):
        for name in given:
            if name not in names:
                raise MedbenchError(f"{flag} {name}", "is nothing that the run needs from elsewhere", choose(name, names))
    supplies = [supply for supply in supplies if supply.name not in left_out]
    asking = [supply for supply in supplies if supply.needs_permission and supply.name not in included]
    if asking:
        said = "; ".join(f"{one} is {_meaning(one)}, licence {one.licence!r}" for one in asking)
        flags = " ".join(one.name for one in asking)
        raise MedbenchError(
            "bundle", said, f"give `--include {flags}` where you may pass them on, or `--without {flags}` where they are there already"
        )
    return supplies


def _meaning(supply: Supply) -> str:
    words = {"own": "your own data, of patients perhaps", "gated": "gated", "manual": "given on application only"}
    return words.get(supply.access, supply.access)


def members(config: Config, there: Mapping[Supply, Sequence[Path]], tar: str) -> Iterator[Member]:
    """All of the bundle but SHA256SUMS. `there`: where each supply lies."""
    run, folder = config.run.run, FOLDER / config.run.run
    models = {name: config.models[name].model_dump(mode="json", exclude_defaults=True) for name in sources.models(config)}
    data = {name: config.datasets[name].model_dump(mode="json", exclude_defaults=True) for name in config.run.datasets}
    packed: dict[str, Path | str] = {}
    for supply, folders in there.items():
        if supply.kind == "weights":
            packed |= _weights(models[supply.name], supply.name, folders)
        elif is_fetched(config.datasets[supply.name]):
            packed |= {f"data/{supply.name}/{name}": file for name, file in _tree(folders[0])}
        else:
            packed |= _own(data[supply.name], config.datasets[supply.name], supply.name, folders[0])
    registries = {name: str(folder / f"{name}.yaml") for name in ("models", "datasets", "modes", "templates")}
    settings = {**config.run.model_dump(mode="json", exclude_defaults=True), "registries": registries}
    modes = {name: config.modes[name].model_dump(mode="json") for name in config.run.modes}
    texts = {"run": settings, "models": models, "datasets": data, "modes": modes, "templates": config.asking.model_dump(mode="json")}
    licences = "\n".join(f"- {supply}: {supply.licence}" for supply in there)
    yield Member("README.txt", README.format(run=run, tar=tar, folder=folder, licences=licences or "- nothing from elsewhere"))
    yield Member("env.sh", ENVIRONMENT.format(folder=folder))
    for name, value in texts.items():
        yield Member(f"{name}.yaml", yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    yield from (Member(name, packed[name]) for name in sorted(packed))


def _weights(entry: dict[str, Any], model: str, folders: Sequence[Path]) -> dict[str, Path | str]:
    """Files of a model; its entry gets the commits, or where the folder will lie."""
    found: dict[str, Path | str] = {}
    repositories = [entry["checkpoint"], *entry.get("companions", {})]
    for name, folder in zip(repositories, folders, strict=True):
        if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
            place = f"hub/{folder.parents[1].name}/snapshots/{folder.name}"
            if name == entry["checkpoint"]:
                entry["revision"] = folder.name
            else:
                entry["companions"][name] = folder.name
        elif "://" in name:
            root = files.cache() / "checkpoints"
            folder = root / folder.relative_to(root).parts[0]
            found |= {f"cache/checkpoints/{folder.name}/{inside}": file for inside, file in _tree(folder)}
            continue
        else:
            place = f"cache/folders/{model}"
            entry["checkpoint"] = f"${{MEDBENCH_CACHE}}/folders/{model}"
        found |= {f"{place}/{inside}": file for inside, file in _tree(folder) if _is_read(file)}
    return found


def _is_read(file: Path) -> bool:
    """Whether a loader reads a file of a checkpoint: no README, no weights for other libraries, pickles only without safetensors."""
    return file.suffix in digests.READ and not (file.suffix == ".bin" and any(file.parent.glob("*.safetensors")))


def _own(entry: dict[str, Any], data: Dataset, name: str, folder: Path) -> dict[str, Path | str]:
    """Files of a data set with a folder of its own; its entry gets where they will lie. Of a table: it, and the images that it names.

    Raises MedbenchError for a table that the other site could not read.
    """
    entry["raw_dir"] = f"${{MEDBENCH_DATA}}/{name}"
    if data.layout != "table":
        return {f"data/{name}/{inside}": file for inside, file in _tree(folder)}
    layout, source = layouts.load_layout(data.layout), Source(name, data.task, folder, data.classes, 0)
    options = layouts.read_options(data.layout, data.options, name)
    index = layout.index_files(options, source)[0]
    found: dict[str, Path | str] = {f"data/{name}/{index.relative_to(folder).as_posix()}": index}
    entry["options"] = {**entry.get("options", {}), "image_root": "images"}
    with tempfile.TemporaryDirectory() as place:  # read once more, as it will be read there
        there = Path(place)
        (there / "images").mkdir()
        (moved := there / index.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        moved.symlink_to(index.resolve())
        carried = layout.items(layouts.read_options(data.layout, entry["options"], name), source._replace(raw_dir=there))
        for item, then in zip(layout.items(options, source), carried, strict=True):
            if isinstance(item, MedbenchError):
                raise item
            if isinstance(then, MedbenchError):
                remedy = "write paths of images relative to their folder, or leave the data set out by --without"
                raise MedbenchError(then.where, "names an image by an absolute path, which the other site has not", remedy)
            image, carried_image = (getattr(one, "image", None) for one in (item, then))
            if isinstance(image, Path) and isinstance(carried_image, Path) and image.is_file():  # `prepare` counts those that are absent
                found[f"data/{name}/{carried_image.relative_to(there).as_posix()}"] = image
    return found


def _tree(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, by its relative path; not what downloads leave, nor links to nowhere."""
    for path in tree.files_below(folder, LEFT_OUT.__contains__):
        if path.is_file() and path.suffix != ".part":
            yield path.relative_to(folder).as_posix(), path


def write(path: Path, run: str, found: Iterable[Member], said: Callable[[int, int], None] = lambda number, size: None) -> int:
    """The tar, one block in memory at a time, with the digest of every file at its end; its size [bytes].

    Raises MedbenchError for a file that changes meanwhile, or has a name that no list of digests takes.
    """
    folder, sums, number = FOLDER / run, list[str](), 0
    with files.atomic(path) as aside, tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, member in enumerate(found, start=1):
            if any(mark in member.path for mark in "\n\r\\"):
                raise MedbenchError(f"bundle {path}", f"{member.path!r} is no name that every system takes", "rename the file")
            content = member.content
            data = io.BytesIO(content.encode()) if isinstance(content, str) else content.open("rb")
            size = len(content.encode()) if isinstance(content, str) else content.stat().st_size
            sums.append(f"{_add(tar, (folder / member.path).as_posix(), data, size)}  {member.path}\n")
            said(number, size)
        text = "".join(sums).encode()
        _add(tar, (folder / SUMS).as_posix(), io.BytesIO(text), len(text))
    return path.stat().st_size


class _Digesting(io.RawIOBase):
    """A stream that is digested while it is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.found = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.found.update(data)
        return data


def _add(tar: tarfile.TarFile, name: str, stream: IO[bytes], size: int) -> str:
    """SHA-256 of what was added. Nothing of who packed it goes along."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    with stream:
        digesting = _Digesting(stream)
        try:
            tar.addfile(info, digesting)
        except OSError as error:
            if error.errno is not None:
                raise
            raise MedbenchError(name, f"became shorter while it was packed ({error})", "run again") from None
    return digesting.found.hexdigest()


def unpack(path: Path) -> Path:
    """The folder `bundles/RUN` of a bundle, once every file of it has its digest.

    Raises MedbenchError for what is no bundle, is cut off or damaged, would lie elsewhere, or is there already.
    """
    if not path.is_file():
        raise MedbenchError(path, "is no file", "give the tar that `python -m medbench bundle` wrote")
    aside = FOLDER / f".{path.stem}.unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        run = _unpacked(path, aside)
        folder = FOLDER / run
        if folder.exists():
            raise MedbenchError(folder, "is there already", "go on with it as it is, or remove it first")
        (aside / run).rename(folder)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _cut(path, " ".join(str(error).split())[:120]) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _unpacked(path: Path, aside: Path) -> str:
    """Name of the run, whose files lie below `aside` now, each with its digest."""
    found, runs = dict[str, str](), set[str]()
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if not member.isfile() or len(parts) < 3 or parts[0] != FOLDER.name or ".." in parts or "\\" in member.name:
                raise MedbenchError(
                    path, f"holds {member.name!r}, which is no file below {FOLDER}/RUN", "take a bundle that medbench wrote"
                )
            runs.add(parts[1])
            target = aside.joinpath(*parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = tar.extractfile(member)
            assert stream is not None, "a file"
            digesting = _Digesting(stream)
            with target.open("xb") as out:
                shutil.copyfileobj(digesting, out, CHUNK)
            found["/".join(parts[2:])] = digesting.found.hexdigest()
    if len(runs) != 1 or SUMS not in found:
        raise _cut(path, f"it holds no {SUMS}")
    (run,) = runs
    found.pop(SUMS)
    said: dict[str, str] = {}
    for line in (aside / run / SUMS).read_text().splitlines():
        said[line[66:]] = line[:64]
    if wrong := [name for name in sorted({*said, *found}) if said.get(name) != found.get(name)]:
        lies = "is damaged" if wrong[0] in said and wrong[0] in found else "is missing" if wrong[0] in said else "is not on its list"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise MedbenchError(path, f"{wrong[0]} {lies}{more}", "carry the file again")
    return paths.slug(run)


def _cut(path: Path, why: str) -> MedbenchError:
    return MedbenchError(path, f"is no whole bundle ({why})", "carry it again, or make it again with `python -m medbench bundle`")
