"""A run is packed in one clone and finishes in another whose network is blocked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import SNAKEMAKE, make_clone
from tests.unit import test_supplies, tiny
from tests.unit.hubserver import serving


def test_a_bundle_finishes_its_run_in_another_clone_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_clone(tmp_path / "here").folder, make_clone(tmp_path / "there").folder
    published = tiny.checkpoint("siglip", tmp_path / "m")
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf"), "MEDBENCH_CACHE": str(tmp_path / "cache")}
    monkeypatch.chdir(here)
    test_supplies.write_run()
    test_supplies.moles(here / "moles")
    run = yaml.safe_load(Path("run.yaml").read_text())
    Path("run.yaml").write_text(yaml.safe_dump({**run, "models": ["my-clip"], "modes": ["ots", "lp"]}))
    with serving() as hub:
        hub.files = {path.name: path.read_bytes() for path in published.iterdir()}
        words = ["bundle", "out.tar", "--configfile", "run.yaml", "--include", "my-moles"]
        made = subprocess.run(
            [sys.executable, "-m", "medbench", *words], env={**environment, "HF_ENDPOINT": hub.address}, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
    shutil.move("out.tar", there)
    shutil.rmtree(here)
    shutil.rmtree(tmp_path / "hf")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    dead = "http://127.0.0.1:9"
    environment |= {"HF_ENDPOINT": dead, "HTTPS_PROXY": dead, "HTTP_PROXY": dead, "HF_HOME": str(tmp_path / "empty")}
    script = f"""set -e
    {sys.executable} -m medbench unbundle out.tar
    . bundles/carried/env.sh
    {SNAKEMAKE} --cores all --configfile bundles/carried/run.yaml"""
    done = subprocess.run(["bash", "-c", script], cwd=there, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (there / "results/report/carried/index.html").is_file() and (there / "results/predictions/my-moles/my-clip/lp.parquet").is_file()
