"""Nothing altered, stale or unrecorded passes: `verify` names it, and the next start says it and makes it again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import Clone

RADIOLOGY, QUESTIONS = "results/predictions/nano-radiology", "results/predictions/nano-vqa-radiology"
ADAPTERS = "results/adapters/nano-radiology"
Alteration = Callable[[Path], object]


def verify(clone: Clone, *given: str) -> subprocess.CompletedProcess[str]:
    """The verb, as a user calls it."""
    command = [sys.executable, "-m", "medbench", "verify", *(given or ("nano",))]
    return subprocess.run(command, cwd=clone.folder, capture_output=True, text=True, check=False)


def rewrite(file: str, *columns: pl.Expr, rows: int | None = None) -> Alteration:
    """A table with other values, or fewer rows."""

    def alter(folder: Path) -> None:
        frame = pl.read_parquet(folder / file)
        frame.with_columns(*columns).head(rows or frame.height).write_parquet(folder / file)

    return alter


def flip(file: str) -> Alteration:
    """One bit of a file's last byte; its size and its time of modification stay."""

    def alter(folder: Path) -> None:
        path = folder / file
        data, before = bytearray(path.read_bytes()), path.stat()
        data[-1] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return alter


def replace(file: str, old: str, new: str) -> Alteration:
    """A text that stands in a file."""

    def alter(folder: Path) -> None:
        path = folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return alter


def swap_adapters(folder: Path) -> None:
    """The whole folder of another model's cell, certificate and run record with it."""
    shutil.rmtree(folder / ADAPTERS / "nano-clip")
    shutil.copytree(folder / ADAPTERS / "nano-medclip", folder / ADAPTERS / "nano-clip")


def other_seed(folder: Path) -> None:
    """The seed of the run is another now, and Snakemake has forgotten everything."""
    replace("config/nano.yaml", "seed: 0", "seed: 7")(folder)
    shutil.rmtree(folder / ".snakemake/metadata")


def other_recipe(folder: Path) -> None:
    """A recipe is another now, and what Snakemake knew is empty."""
    replace("config/modes.yaml", "lp:\n  kind: probe\n", "lp:\n  kind: probe\n  n_splits: 3\n")(folder)
    for file in (folder / ".snakemake/metadata").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


LORA, VQA = "nano-radiology/nano-clip/lora", "nano-vqa-radiology/nano-llava/ots"
SCORES = pl.col("scores").list.reverse()
ALTERATIONS: dict[str, tuple[Alteration, str, set[str]]] = {
    "an edited answer": (
        rewrite(f"{QUESTIONS}/nano-llava/ots.parquet", pl.col("reference").alias("answer")),
        f"ALTERED: {QUESTIONS}/nano-llava/ots.parquet: is not the file that its job wrote",
        {f"predict {VQA}", f"score {VQA}"},
    ),
    "edited scores": (
        rewrite(f"{RADIOLOGY}/nano-clip/lora.parquet", SCORES),
        f"ALTERED: {RADIOLOGY}/nano-clip/lora.parquet: is not the file that its job wrote",
        {f"predict {LORA}", f"interval {LORA}"},
    ),
    "swapped labels": (
        rewrite(f"{RADIOLOGY}/nano-clip/lora.parquet", (1 - pl.col("label")).cast(pl.Int16).alias("label")),
        f"ALTERED: {RADIOLOGY}/nano-clip/lora.parquet: row 0",
        {f"predict {LORA}"},
    ),
    "deleted rows": (
        rewrite(f"{RADIOLOGY}/nano-clip/lora.parquet", rows=7),
        f"ALTERED: {RADIOLOGY}/nano-clip/lora.parquet: holds 7 samples, the test split of nano-radiology",
        {f"predict {LORA}"},
    ),
    "a flipped weight, its time set back": (
        flip(f"{ADAPTERS}/nano-clip/lora/weights/adapter_model.safetensors"),
        f"ALTERED: {ADAPTERS}/nano-clip/lora/weights/adapter_model.safetensors: is not the file that its job wrote",
        {f"adapt {LORA}", f"predict {LORA}"},
    ),
    "a deleted file of weights": (
        lambda folder: (folder / ADAPTERS / "nano-clip/lora/weights/head.safetensors").unlink(),
        f"ALTERED: {ADAPTERS}/nano-clip/lora/weights/head.safetensors: is gone",
        {f"adapt {LORA}"},
    ),
    "another model's adapters": (
        swap_adapters,
        f"ALTERED: {ADAPTERS}/nano-clip/lora/certificate.json: is of cell nano-radiology/nano-medclip/lora, not {LORA}",
        {f"adapt {LORA}", "adapt nano-radiology/nano-clip/lp"},
    ),
    "another model's predictions": (
        lambda folder: shutil.copy(folder / RADIOLOGY / "nano-medclip/lora.parquet", folder / RADIOLOGY / "nano-clip/lora.parquet"),
        f"ALTERED: {RADIOLOGY}/nano-clip/lora.parquet: is not the file that its job wrote",
        {f"predict {LORA}"},
    ),
    "another seed, without Snakemake's metadata": (
        other_seed,
        "STALE: results/data/nano-radiology/train.parquet: was made otherwise (seed: 0 -> 7)",
        {"prepare nano-radiology", f"adapt {LORA}", f"interval {LORA}"},
    ),
    "another recipe, with emptied metadata": (
        other_recipe,
        f"STALE: {ADAPTERS}/nano-clip/lp/certificate.json: was made otherwise (",
        {"adapt nano-radiology/nano-clip/lp", "predict nano-radiology/nano-clip/lp"},
    ),
    "an edited image table": (
        flip("results/data/nano-radiology/images.parquet"),
        "ALTERED: results/data/nano-radiology/images.parquet: is not the file that its job wrote",
        {"prepare nano-radiology"},
    ),
    "an edited interval": (
        rewrite(f"results/intervals/{LORA}.parquet", pl.lit(1.0).alias("estimate")),
        f"ALTERED: results/intervals/{LORA}.parquet: is not the file that its job wrote",
        {f"interval {LORA}", "gaps nano", "report nano"},
    ),
    "an edited page": (
        replace("results/report/nano/index.html", "Chest", "Cheat"),
        "ALTERED: results/report/nano/index.html: is not the file that its job wrote",
        {"report nano"},
    ),
    "a deleted prediction": (
        lambda folder: (folder / RADIOLOGY / "nano-clip/lora.parquet").unlink(),
        f"MISSING: {RADIOLOGY}/nano-clip/lora.parquet: is gone, but its run record is there",
        {f"predict {LORA}", f"interval {LORA}", "report nano"},
    ),
}


REPEATED = ("edited scores", "a deleted file of weights", "another model's predictions", "an edited image table", "an edited page")
"""Of a kind with others: a table, a file of weights or a page that is not what its job wrote."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.full] * (name in REPEATED)) for name in ALTERATIONS])
def test_what_is_altered_or_stale_is_named_and_made_again(clone: Clone, name: str) -> None:
    alter, said, again = ALTERATIONS[name]
    alter(clone.folder)
    found = verify(clone)
    assert found.returncode == 2 and said in found.stdout and "Traceback" not in found.stderr, found.stdout + found.stderr
    assert again <= set(clone.plan()), "and the next start makes it again"


def test_an_untouched_run_is_silent_and_a_copy_of_it_too(clone: Clone) -> None:
    """Copied to another machine without Snakemake's metadata and without its times, results are still the results."""
    found = verify(clone)
    assert (found.returncode, found.stdout) == (0, ""), found.stdout + found.stderr
    shutil.rmtree(clone.folder / ".snakemake/metadata")
    for file in sorted((clone.folder / "results").rglob("*"), key=lambda one: one.stat().st_mtime_ns):
        os.utime(file)
    outcome = clone.snakemake("--dry-run")
    assert "Nothing to be done" in outcome.output and "ALTERED" not in outcome.output, outcome.output


def test_a_start_makes_what_was_altered_again_and_says_so(clone: Clone) -> None:
    before = clone.tables()
    alter, _, _ = ALTERATIONS["edited scores"]
    alter(clone.folder)
    outcome = clone.snakemake()
    file = f"{RADIOLOGY}/nano-clip/lora.parquet"
    assert outcome.code == 0 and f"ALTERED: {file}: is not the file that its job wrote" in outcome.output, outcome.output
    assert f"predict {LORA}" in outcome.executed and clone.tables() == before
    assert not [job for job in outcome.executed if job.startswith(("adapt", "prepare", "embed"))]
    assert verify(clone).returncode == 0


def test_a_lost_run_record_is_said_and_nothing_is_thrown_away(clone: Clone) -> None:
    for file in (f"{RADIOLOGY}/nano-clip/lora.run.json", f"{ADAPTERS}/nano-medclip/lora/certificate.run.json"):
        (clone.folder / file).unlink()
    outcome = clone.snakemake("--dry-run")
    assert "Nothing to be done" in outcome.output
    for file in (f"{RADIOLOGY}/nano-clip/lora.parquet", f"{ADAPTERS}/nano-medclip/lora/certificate.json"):
        line = f"UNRECORDED: {file}: its run record is missing: how it was made is not known"
        assert line in outcome.output and line in verify(clone).stdout


def test_what_a_failed_job_left_is_made_again(clone: Clone) -> None:
    """On a disk that became read-only, neither its output could be removed nor its run record written."""
    (clone.folder / f"{RADIOLOGY}/nano-clip/lora.run.json").unlink()
    (clone.folder / f"logs/predict/{LORA}.log").write_text("ERROR: results: Read-only file system; make room and run again\n")
    planned = clone.plan()
    assert f"predict {LORA}" in planned and f"adapt {LORA}" not in planned


def test_now_says_what_it_cannot_make_again_and_comes_to_an_end(clone: Clone) -> None:
    """An edited prediction and another seed: no model job may run, so the start and the page say it."""
    rewrite(f"{RADIOLOGY}/nano-clip/lora.parquet", SCORES)(clone.folder)
    (clone.folder / ADAPTERS / "nano-clip/ots").mkdir()  # left over from a mode of another kind
    (clone.folder / ADAPTERS / "nano-clip/ots/certificate.json").write_text("{}")
    other_seed(clone.folder)
    outcome = clone.snakemake("now")
    assert outcome.code == 0 and not [job for job in outcome.executed if job.startswith(("adapt", "predict", "prepare"))], outcome.output
    assert "STALE: results/data/nano-radiology/train.parquet: was made otherwise (seed: 0 -> 7)" in outcome.output
    page = (clone.folder / "results/report/nano/index.html").read_text()
    assert "results/data/nano-radiology: seed 0, the run&#39;s is 7" in page
    assert f"{RADIOLOGY}/nano-clip/lora.parquet: is not the file that its job wrote" in page
    again = clone.snakemake("now", "--dry-run")
    assert "Nothing to be done" in again.output, again.output
    assert "certificate.json" in verify(clone).stdout, "what is left over is named as well"


def test_deleted_embeddings_are_named_and_no_error(clone: Clone) -> None:
    (clone.folder / "results/embeddings/nano-radiology/nano-clip.parquet").unlink()
    found = verify(clone)
    assert found.returncode == 0 and found.stdout.startswith("MISSING: results/embeddings/nano-radiology/nano-clip.parquet: is gone")
    assert "byte by byte, but for 1 missing file\n" in found.stderr
    assert "Nothing to be done" in clone.snakemake("--dry-run").output


def test_a_broken_test_split_is_named_itself(clone: Clone) -> None:
    (clone.folder / "results/data/nano-radiology/test.parquet").write_bytes(b"PAR1")
    found = verify(clone)
    assert found.returncode == 2 and "ALTERED: results/data/nano-radiology/test.parquet: " in found.stdout
    assert "ALTERED: results/predictions" not in found.stdout


def test_rerun_triggers_keep_what_is_only_stale(clone: Clone) -> None:
    other_recipe(clone.folder)
    outcome = clone.snakemake("--dry-run", "--rerun-triggers", "mtime")
    assert "Nothing to be done" in outcome.output, outcome.output
    assert f"STALE: {ADAPTERS}/nano-clip/lp/certificate.json: was made otherwise" in outcome.output


def test_a_run_that_is_not_there_is_one_line(finished: Clone, tmp_path: Path) -> None:
    found = verify(finished, "nona")
    assert found.returncode == 2 and found.stderr.startswith(
        "ERROR: run 'nona': no file in config/ or tries/ has it; choose from companion, demo, "
    )
    assert found.stderr.count("\n") == 1
    command = [sys.executable, "-m", "medbench", "verify", "nano"]
    elsewhere = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(finished.folder)}, capture_output=True, text=True
    )
    assert elsewhere.returncode == 2 and f"ERROR: run nano: has no results in {tmp_path}" in elsewhere.stderr
