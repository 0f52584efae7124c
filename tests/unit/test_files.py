"""Files that appear whole or not at all: on full, failing and several disks, and when the power goes."""

import contextlib
import errno
import json
import os
import platform
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from medbench import cli, config, paths, tables
from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import console, files, partial
from medbench.remote import store
from medbench.verbs import store as verb_store
from tests.unit import refusing

ROOT = Path(__file__).parents[2]
NANO = str(ROOT / "config/nano.yaml")
SET = "nano-radiology"
NUMBERS = np.random.default_rng(0).random(100_000)
TABLE = pl.DataFrame({"a": NUMBERS})
WRITERS: dict[str, Callable[[Path], object]] = {
    "polars-parquet": TABLE.write_parquet,
    "polars-csv": TABLE.write_csv,
    "pyarrow": lambda path: pq.write_table(TABLE.to_arrow(), path),
    "safetensors": lambda path: save_file({"a": torch.from_numpy(NUMBERS)}, path),
    "torch": lambda path: torch.save({"a": torch.from_numpy(NUMBERS)}, path),
    "png": lambda path: Image.fromarray((NUMBERS * 255).astype(np.uint8).reshape(400, 250)).resize((2000, 1250)).save(path, "PNG"),
    "json": lambda path: path.write_text(json.dumps(NUMBERS.tolist()), encoding="utf-8"),
}


def mount(folder: Path, size: str) -> None:
    """A small disk of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB."""
    folder = tmp_path / "disk"
    mount(folder, "256k")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_nothing(disk: Path, writer: str) -> None:
    path = disk / "table.x"
    with pytest.raises(Interrupted) as error, files.atomic(path) as aside:
        WRITERS[writer](aside)
    assert str(error.value) == f"{path}: No space left on device; make room and run again"
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_a_job_on_a_full_disk_ends_in_one_line(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    """Whatever it writes with, in the folder of its unfinished work; what begins anew leaves nothing there."""
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    Path("results/.partial").symlink_to(disk)
    with pytest.raises(Interrupted, match=r"results/\.partial/report-x: No space left on device; make room") as error:  # noqa: SIM117
        with partial.anew("report-x", "report x") as folder:
            WRITERS[writer](folder / "a")
    assert "\n" not in str(error.value)
    assert [path for path in disk.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_job_whose_log_lies_on_the_full_disk_is_told_of(disk: Path) -> None:
    log = disk / "x.log"
    log.touch()
    assert console.error_of(log, "it said nothing") == ("it said nothing", "")
    with contextlib.suppress(OSError):
        (disk / "rest").write_bytes(bytes(2**20))
    assert console.error_of(log, "it said nothing") == (f"ERROR: {log}: No space left on device; make room and run again", "")


def prepared(name: str = SET) -> int:
    """The verb by hand."""
    return cli.main(["prepare", name, "--configfile", NANO])


def test_prepare_on_a_full_disk_says_so_keeps_nothing_and_the_old_tables(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepared() == 0
    before = {path: path.read_bytes() for path in paths.data(SET)}
    Path("results/.partial").rmdir()
    Path("results/.partial").symlink_to(disk)
    capsys.readouterr()
    assert prepared() == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"ERROR: results/.partial/prepare-{SET}: No space left on device; make room and run again"
    assert not list(disk.rglob("*.parquet"))
    assert {path: path.read_bytes() for path in paths.data(SET)} == before


@pytest.mark.parametrize("linked", [f"results/data/{SET}", "results/.partial"])
def test_a_folder_on_another_disk(linked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(tmp_path / "other", "8m")
    try:
        monkeypatch.chdir(tmp_path)
        Path(linked).parent.mkdir(parents=True)
        Path(linked).symlink_to(tmp_path / "other")
        for _ in range(2):  # in the place of nothing, and of an older one
            assert prepared() == 0
        assert all(path.is_file() for path in paths.data(SET))
        assert not list(tmp_path.rglob("*.*.partial"))
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "other")], check=True)


def test_what_does_not_fit_the_other_disk_leaves_the_old_files(disk: Path, tmp_path: Path) -> None:
    made, target = tmp_path / "made", disk / "model"
    for folder, text in ((target, "old"), (made / "model", "new")):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(text)
    (made / "model/weights").write_bytes(bytes(2**20))
    with pytest.raises(Interrupted, match=rf"{target}: No space left on device"):
        files.publish(made, [target])
    assert (target / "config.json").read_text() == "old"
    assert list(disk.iterdir()) == [target]


def test_a_link_to_a_disk_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results").symlink_to("/nowhere/results")
    with pytest.raises(MedbenchError, match=r"results: is a link to /nowhere/results, which is not there; mount its disk"):  # noqa: SIM117
        with files.atomic(Path("results/x/y.json")):
            pass
    Path("file").touch()
    with pytest.raises(MedbenchError, match=r"file: is in the place of a folder"), files.atomic(Path("file/x/y.json")):
        pass


WRITE = """from pathlib import Path
from medbench.errors import MedbenchError
from medbench.jobs import files
try:
    with files.atomic(Path("x.json")) as aside:
        aside.write_text("{}")
except MedbenchError as error:
    print(error)
"""


@pytest.mark.skipif(platform.machine() not in refusing.CALLS or sys.platform != "linux", reason="refusals are Linux's")
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EIO, "check its disk"),
        (errno.EDQUOT, "make room"),
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "let this user read and write it"),
        (errno.EROFS, "let this user read and write it"),
        (errno.ESTALE, "check its disk"),
    ],
)
def test_a_disk_that_fails_when_it_must_write_is_one_line(tmp_path: Path, number: int, remedy: str) -> None:
    """As network disks do, which say at the end alone that they are full."""
    said, error = refusing.start(WRITE, tmp_path, number, call="fsync").communicate(timeout=60)
    assert said == f"x.json: {os.strerror(number)}; {remedy}, and run again\n".replace("room, and", "room and"), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_there", [False, True])
def test_what_is_about_patients_is_for_its_owner_alone_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """Judgements, sheets and exported answers; whatever the mask, and whatever the old file lets others do."""
    modes, plain = list[int](), Path.replace

    def watched(aside: Path, target: Path) -> Path:
        modes.append(stat.S_IMODE(aside.stat().st_mode))
        return plain(aside, target)

    monkeypatch.setattr(Path, "replace", watched)
    table, sheet, stored = (tmp_path / name for name in ("made.parquet", "sheet.csv", "out.jsonl"))
    before = os.umask(0)
    try:
        for path in (table, sheet, stored) if is_there else ():
            path.write_text("old")
        tables.write(tables.Judgements, pl.DataFrame(schema=tables.columns(tables.Judgements)), table)
        files.write_private(sheet, "a patient")
        kept = store.Store("openai", "m", tmp_path / "store")
        kept.add("0" * 64, True, body={"id": 1})
        kept.close()
        assert verb_store.export(verb_store.Kept(kept.folder, "openai", "m", 1, 0, 1, "", ""), stored) == 1
    finally:
        os.umask(before)
    assert modes == [0o600] * 3, [oct(mode) for mode in modes]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (table, sheet, stored, *kept.folder.iterdir())} == {0o600}
    assert pl.read_parquet(table).is_empty() and sheet.read_text() == "a patient"


def test_a_disk_that_has_no_use_for_it_is_no_fault(tmp_path: Path) -> None:
    said, error = refusing.start(WRITE, tmp_path, errno.EINVAL, call="fsync").communicate(timeout=60)
    assert (said, error, [path.name for path in tmp_path.iterdir()]) == ("", "", ["x.json"])


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed to the disk, seen on its way: a power cut cannot be had."""
    path, seen, plain = tmp_path / "x.json", list[tuple[bool, int, bool]](), os.fsync

    def watched(handle: int) -> None:
        entry = os.fstat(handle)
        seen.append((os.path.samestat(entry, tmp_path.stat()), entry.st_size, path.exists()))
        plain(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with files.atomic(path) as aside:
        aside.write_text("12345")
    assert seen[0][1:] == (5, False) and seen[-1][0] and seen[-1][2], "the content, then the name"
    made = tmp_path / "made/model"
    made.mkdir(parents=True)
    (made / "weights").write_text("123")
    seen.clear()
    files.publish(made.parent, [path.with_name("model")])
    assert (False, 3, True) in seen and seen[-1][0]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """What a killed process left beside it is gone after the next try; what a live one writes there stays."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    beside = {process: tmp_path / f".out.{socket.gethostname()}.{process}.partial" for process in (gone.pid, os.getppid())}
    for folder in beside.values():
        folder.mkdir()
        (folder / "weights").touch()

    def write(text: str) -> None:
        with files.atomic(tmp_path / "out") as aside:
            (aside / "deep").mkdir(parents=True)
            (aside / "deep/weights").write_text(text)
            if text == "half":
                raise MedbenchError("cell", "cannot be read", "run again")

    with pytest.raises(MedbenchError, match="cannot be read"):
        write("half")
    assert [*tmp_path.iterdir()] == [beside[os.getppid()]]
    write("whole")
    assert (tmp_path / "out/deep/weights").read_text() == "whole" and len([*tmp_path.iterdir()]) == 2


def test_an_unfit_note_of_what_fits_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "{", "null", "[4]", '"4"', "0", "-3", "1.5", "true", "\0\0"):
        (tmp_path / "fits.json").write_text(text)
        assert partial.Work(tmp_path).microbatching.size is None, text
    (tmp_path / "fits.json").write_text("4")
    assert partial.Work(tmp_path).microbatching.size == 4


def test_a_resolved_configuration_that_is_not_what_it_was_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = config.from_files([ROOT / "config/config.yaml", Path(NANO)], ROOT)
    path = cli.write_resolved(loaded)
    whole = path.read_text()
    for text in ("", whole[: len(whole) // 2], whole.replace('"seed":0', '"seed":1'), "\0" * len(whole)):
        path.write_text(text)
        with pytest.raises(MedbenchError, match=rf"{path}: was changed or cut after this start wrote it; give the same command again"):
            config.from_resolved(path)
        assert cli.write_resolved(loaded) == path and path.read_text() == whole
    path.unlink()
    with pytest.raises(MedbenchError, match="is gone; give the same command again"):
        config.from_resolved(path)
