"""What `squeue` says of a folder's jobs; a SLURM that is absent, broken or slow says nothing. Holds no cluster (tests/cluster)."""

import os
from pathlib import Path

import pytest

from medbench.jobs import slurm


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def answering(folder: Path, script: str) -> None:
    file = folder / "bin/squeue"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_jobs_of_this_folder_are_known_by_their_comments(folder: Path) -> None:
    lines = [
        f"17|PENDING|{folder}|rule_predict_wildcards_set_model_lora",
        f"18|RUNNING|{folder}|rule_embed_wildcards_set_model",
        "19|PENDING|/elsewhere|rule_adapt_wildcards_set_model_lora",
        "a line that is none",
    ]
    answering(folder, "\n".join(f"echo '{line}'" for line in lines))
    found = slurm.queued()
    assert str(found[slurm.comment("predict", ("set", "model", "lora"))]) == "queued as SLURM job 17"
    assert str(found[slurm.comment("embed", ("set", "model"))]) == "SLURM job 18"
    assert slurm.comment("adapt", ("set", "model", "lora")) not in found


@pytest.mark.parametrize("script", ["exit 1", "echo error >&2; exit 1", "sleep 5"])
def test_a_slurm_that_does_not_answer_says_nothing(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "SECONDS", 0.2)
    answering(folder, script)
    assert slurm.queued() == {}
