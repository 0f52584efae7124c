"""A finished nano run, copied for each test: what a test changes in its copy shows by what Snakemake then really executes."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("Snakefile", "workflow", "medbench", "config", "profiles", "slurm", "resources")


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
        """Run Snakemake in the clone as a user does."""
        before = self.records()
        command = [str(Path(sys.executable).with_name("snakemake")), *arguments, "--cores", "all", "--configfile", configfile]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=3600)
        after = self.records()
        executed = {name for name, record in after.items() if before.get(name) != record}
        return Outcome(done.returncode, done.stdout + done.stderr, executed)

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


def until(found: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """One finished nano run; never changed, only copied."""
    clone = make_clone(tmp_path_factory.mktemp("nano") / "clone")
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    return clone


@pytest.fixture
def clone(finished: Clone, tmp_path: Path) -> Iterator[Clone]:
    """A finished nano run of the test's own."""
    folder = tmp_path / "clone"
    shutil.copytree(finished.folder, folder, symlinks=True)
    yield Clone(folder)
    shutil.rmtree(folder, ignore_errors=True)
