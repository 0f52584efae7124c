"""A finished nano run, copied for each test: what a test changes in its copy shows by what Snakemake then really executes."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
SOURCES = ("Snakefile", "workflow", "medbench", "config", "profiles", "slurm", "now", "resources")


class Outcome(NamedTuple):
    """What one call of Snakemake did. `executed`: jobs as `stage name/name/...`, by the run records that they wrote."""

    code: int
    output: str
    executed: set[str]


class Clone:
    """A copy of the sources with its own results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def snakemake(self, *arguments: str, configfile: str = "config/nano.yaml") -> Outcome:
        """Run Snakemake in the clone as a user does; `configfile` may be several words."""
        before = self.records()
        command = [SNAKEMAKE, *arguments, "--cores", "all", "--configfile", *configfile.split()]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=3600)
        after = self.records()
        executed = {name for name, record in after.items() if before.get(name) != record}
        return Outcome(done.returncode, done.stdout + done.stderr, executed)

    def plan(self, *targets: str, configfile: str = "config/nano.yaml") -> list[str]:
        """Jobs that Snakemake would run, as `Outcome.executed` names them, each after those that it needs."""
        outcome = self.snakemake("--dry-run", *targets, configfile=configfile)
        assert outcome.code == 0, outcome.output
        blocks = re.findall(r"^ *(?:local)?rule (\w+):$(.*?)(?=^ *(?:local)?rule|\Z)", outcome.output, re.MULTILINE | re.DOTALL)
        wildcards = [(stage, re.search(r"^ +wildcards: (.*)$", block, re.MULTILINE)) for stage, block in blocks]
        found = [
            f"{stage.removesuffix('_remote')} {'/'.join(pair.split('=')[1] for pair in names[1].split(', '))}"
            for stage, names in wildcards
            if names
        ]
        assert found or "Nothing to be done" in outcome.output, outcome.output
        return found

    def compute(self, *targets: str, configfile: str = "config/nano.yaml", executed: Path | None = None) -> None:
        """Run what Snakemake plans in one process: for what is about the stages' results. Snakemake keeps no record of these jobs.

        `executed`: a file to write, of the definitions that each job executed.
        """
        jobs = [job.replace(" ", "/").split("/") for job in self.plan(*targets, configfile=configfile)]
        command = [sys.executable, str(ROOT / "tests/one_process.py"), configfile, json.dumps(jobs), *([str(executed)] if executed else [])]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=3600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def records(self) -> dict[str, str]:
        """Job -> the text of its run record."""
        found = {}
        for path in (self.folder / "results").rglob("*.run.json"):
            text = path.read_text()
            record = json.loads(text)
            found[f"{record['stage']} {'/'.join(record['names'])}"] = text
        return found

    def tables(self) -> dict[str, bytes]:
        """Every Parquet table of the results."""
        results = self.folder / "results"
        return {str(path.relative_to(results)): path.read_bytes() for path in sorted(results.rglob("*.parquet"))}

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that must stand in the file exactly once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    def append(self, file: str, text: str) -> None:
        """Add lines to the end of a file."""
        path = self.folder / file
        path.write_text(path.read_text() + text)


def make_clone(folder: Path) -> Clone:
    """Copy the sources, not the results."""
    folder.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_symlink():
            (folder / name).symlink_to(os.readlink(source))
        elif source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, folder / name)
    return Clone(folder)


def until(found: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests stay on one worker, where they share what was made once; of `workflow`, whose tests are long, each goes by itself.

    xdist's own groups (`--dist loadgroup`) are lost on pytest 9.2: they are written into an attribute that it no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith("tests/workflow/") else nodeid.split("::", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """The hook of pytest-xdist."""
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is known of the tests' files does not go into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """One finished nano run of all workers of this session; never changed, only copied."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "nano"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            clone = make_clone(place.with_name("nano-unfinished"))
            outcome = clone.snakemake()
            assert outcome.code == 0, outcome.output
            clone.folder.rename(place)
    return Clone(place)


@pytest.fixture
def clone(finished: Clone, tmp_path: Path) -> Iterator[Clone]:
    """A finished nano run of the test's own."""
    folder = tmp_path / "clone"
    shutil.copytree(finished.folder, folder, symlinks=True)
    yield Clone(folder)
    shutil.rmtree(folder, ignore_errors=True)
