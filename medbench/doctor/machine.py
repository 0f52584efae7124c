"""Python, packages, GPUs, disks, locks, the hub and SLURM, as this process finds them."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml
from huggingface_hub import HfApi, constants, get_session, get_token
from huggingface_hub.errors import HfHubHTTPError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from medbench import paths
from medbench.doctor import FAULT, OK, WARNING, Line
from medbench.errors import first
from medbench.jobs import devices, exclusive, files, locks, network

TRACKED = False  # looks, and makes no result
ROOM, LEAST = 20e9, 1e9
"""Bytes free on a disk: fewer are worth a warning, and a fault."""
SECONDS = 10
"""To reach the hub."""
_SHOWN = 4
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def look(root: Path, needs_gpu: bool = False) -> Iterator[Line]:
    """Everything but models and data. `root`: of the clone; `needs_gpu`: whether a model is asked for that takes days without one."""
    yield from _packages(root)
    yield from _gpus(needs_gpu)
    yield from _disks()
    yield _locks()
    yield from _hub()
    yield from _slurm(root)


def _packages(root: Path) -> Iterator[Line]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python, wanted = platform.python_version(), SpecifierSet(project["requires-python"])
    again = "make a new .venv: `make PYTHON=python3.12 .venv/.ready`"
    yield Line(OK, "Python", python) if python in wanted else Line(FAULT, "Python", f"{python}, medbench needs {wanted}", again)
    needed = [Requirement(one) for one in project["dependencies"]]
    installed = {one.name: _version(one.name) for one in needed}
    wrong = [f"{one.name} {installed[one.name] or 'is missing'} ({one.specifier})" for one in needed if not _fits(one, installed[one.name])]
    pinned = {
        canonicalize_name(name): version for name, version in _PINNED.findall((root / "requirements.lock").read_text(encoding="utf-8"))
    }
    others = {
        name: version for name in pinned if (version := _version(name)) and version.partition("+")[0] != pinned[name].partition("+")[0]
    }
    if wrong:
        yield Line(
            FAULT,
            "packages",
            f"{len(wrong)} do not fit: {first(wrong, limit=_SHOWN)}",
            "install them: `make .venv/.ready` after `rm .venv/.ready`",
        )
    elif others:
        shown = first([f"{name} {version} (lock: {pinned[name]})" for name, version in others.items()], limit=_SHOWN)
        yield Line(
            WARNING,
            "packages",
            f"fit, but {len(others)} differ from requirements.lock: {shown}",
            "each result's record names what it was made with",
        )
    else:
        yield Line(OK, "packages", f"{len(needed)} needed ones are there, all in the versions of requirements.lock")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(needed: Requirement, version: str | None) -> bool:
    return version is not None and needed.specifier.contains(version, prereleases=True)


def _gpus(needs_gpu: bool) -> Iterator[Line]:
    import torch

    found = devices.found()
    if not found:
        state = FAULT if needs_gpu else OK
        hidden = f" ({devices.VISIBLE} is {os.environ[devices.VISIBLE]!r})" if devices.VISIBLE in os.environ else ""
        remedy = "run on a machine with one, or choose smaller models" if needs_gpu else ""
        yield Line(state, "GPUs", f"none is visible{hidden}: the CPU computes, which is enough for the demo's models", remedy)
        return
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.free", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout if shutil.which("nvidia-smi") else ""
    listed = "; ".join(" ".join(line.split()) for line in said.splitlines())
    shown = f"{len(found)} visible{f' ({listed}: name, driver, memory, free)' if listed else ''}; torch {torch.__version__}"
    if torch.cuda.is_available():
        yield Line(OK, "GPUs", f"{shown} for CUDA {torch.version.cuda}")
    elif torch.version.cuda is None:
        yield Line(FAULT, "GPUs", f"{shown} is a build without CUDA", "install the versions of requirements.lock: `make .venv/.ready`")
    else:
        yield Line(FAULT, "GPUs", f"{shown} for CUDA {torch.version.cuda} sees none", "update the driver, or install an older CUDA build")


def _disks() -> Iterator[Line]:
    """Each disk once, by the first folder on it."""
    seen = set[int]()
    places = {
        "results": paths.RESULTS, "data (MEDBENCH_DATA)": paths.raw("x").parent, "weights (HF_HOME)": Path(constants.HF_HUB_CACHE),
        "downloads (MEDBENCH_CACHE)": files.cache(), "temporary files (TMPDIR)": Path(os.environ.get("TMPDIR") or "/tmp"),
    }  # fmt: skip
    for name, place in places.items():
        there = next(one for one in (place.absolute(), *place.absolute().parents) if one.is_dir())
        subject = f"disk of {name}"
        if not os.access(there, os.W_OK):
            yield Line(FAULT, subject, f"{there} cannot be written", "let this user write it, or set another place")
        elif (device := there.stat().st_dev) not in seen:
            seen.add(device)
            free = shutil.disk_usage(there).free
            state = FAULT if free < LEAST else WARNING if free < ROOM else OK
            yield Line(state, subject, f"{free / 1e9:.1f} GB free at {there}", "" if state == OK else "make room, or set another place")


def _locks() -> Line:
    """Whether two starts would see each other here, and whether one is at work."""
    owner = locks.read(exclusive.FOLDER / "medbench.owner")
    busy = f"; a start is at work: {owner}" if owner is not None and owner.lives() is not False else ""
    folder = next(one for one in (paths.RESULTS.absolute(), *paths.RESULTS.absolute().parents) if one.is_dir())
    first, second = locks.Lock(folder / ".medbench-doctor.lock"), locks.Lock(folder / ".medbench-doctor.lock")
    try:
        first.acquire()
        kernel = first._kernel is not None
        try:
            second.acquire()
            second.release()
            return Line(FAULT, "locks", f"{folder} gives one lock twice", "put the folder on another disk")
        except locks.Busy:
            kinds = "files are locked" if kernel else "this disk has no locks; notes of host and process stand for them"
            return Line(OK if kernel else WARNING, "locks", f"{kinds} in {folder}{busy}")
        finally:
            first.release(remove=True)
    except locks.Busy as error:
        return Line(WARNING, "locks", f"{folder} is being looked at by {error}", "run again")
    except OSError as error:
        return Line(FAULT, "locks", f"{folder}: {os.strerror(error.errno or 0)}", "let this user write there")


def _hub() -> Iterator[Line]:
    """Whether it can be reached, and takes the token, which is never printed. Offline is a state, no fault."""
    home, token = Path(constants.HF_HOME), get_token()
    n_models = len(list(Path(constants.HF_HUB_CACHE).glob("models--*")))
    yield Line(OK, "HF_HOME", f"{home}{'' if home.is_dir() else ' (made when needed)'}; {n_models} models in its cache")
    where = "hub" if constants.ENDPOINT == "https://huggingface.co" else f"hub ({constants.ENDPOINT})"
    there = f"only what is cached is used; a token is {'' if token else 'not '}there"
    if constants.HF_HUB_OFFLINE:
        yield Line(OK, where, f"offline, by HF_HUB_OFFLINE: {there}")
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # of whatever HTTP library the client uses: proxies, names, certificates
        remedy = "behind a proxy set HTTPS_PROXY; without a network set HF_HUB_OFFLINE=1"
        yield Line(WARNING, where, f"offline: it cannot be reached ({type(error).__name__}); {there}", remedy)
        return
    if token is None:
        yield Line(OK, where, "reached; no token is there, which only gated models need: `hf auth login`")
        return
    try:
        yield Line(OK, where, f"reached; its token is that of {HfApi().whoami(token=token)['name']}")
    except (HfHubHTTPError, network.HTTPError, OSError) as error:
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            yield Line(FAULT, where, "reached, but it refuses the token", "`hf auth login`, or set HF_TOKEN anew")
        else:
            yield Line(WARNING, where, "reached, but it does not say whose the token is", "run again later")


def _slurm(root: Path) -> Iterator[Line]:
    profile = yaml.safe_load((root / "profiles/slurm/profile.yaml").read_text(encoding="utf-8")) or {}
    default = profile.get("default-resources") or {}
    if isinstance(default, list):
        default = dict(one.partition("=")[::2] for one in default)
    asked = {name: str(default[f"slurm_{name}"]).strip("'\"") for name in ("account", "partition") if f"slurm_{name}" in default}
    if not shutil.which("sbatch"):
        state = WARNING if asked else OK
        yield Line(state, "SLURM", "sbatch is not on the PATH: `--profile slurm` works where it is, on a login node")
        return
    partitions = _said("sinfo", "-h", "-o", "%P")
    names = {one.rstrip("*") for one in partitions}
    if not partitions:
        yield Line(
            WARNING, "SLURM", "sbatch is there, but `sinfo` names no partition", "no cluster answers: `--profile slurm` cannot work here"
        )
    elif (wanted := asked.get("partition")) and wanted not in names:
        yield Line(FAULT, "SLURM", f"profiles/slurm names partition {wanted}", f"choose from {', '.join(sorted(names))}")
    elif not wanted and not any(one.endswith("*") for one in partitions):
        remedy = f"add slurm_partition under default-resources in profiles/slurm/profile.yaml: one of {', '.join(sorted(names))}"
        yield Line(WARNING, "SLURM", "has no default partition, and the profile names none", remedy)
    else:
        yield Line(OK, "SLURM", f"sbatch is there; partition {wanted or 'by default'} of {', '.join(sorted(names))}")
    accounts = set(_said("sacctmgr", "-n", "-P", "show", "assoc", f"user={os.environ.get('USER', '')}", "format=account"))
    if accounts and (account := asked.get("account")) and account not in accounts:
        yield Line(FAULT, "SLURM", f"profiles/slurm names account {account}", f"choose from {', '.join(sorted(accounts))}")


def _said(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
