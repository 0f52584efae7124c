"""Fetched and manual data sets through Snakemake: what is fetched is prepared, what needs an application says so and stops nothing else."""

import io
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import Clone
from tests.unit import official
from tests.unit.hubserver import REPO, serving


def test_a_hub_set_is_fetched_and_prepared_while_a_manual_one_waits(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = official.slake(tmp_path / "slake")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, path.relative_to(folder))
    registry = clone.folder / "config/datasets.yaml"
    entries = yaml.safe_load(registry.read_text())
    entries["slake"] |= {"allow_counts": True, "max_drops": 0.5}
    entries["slake"]["source"]["repo"] = REPO
    registry.write_text(yaml.safe_dump(entries, sort_keys=False))
    targets = [f"results/data/{name}/card.json" for name in ("slake", "chexpert")]
    with serving() as hub:
        hub.files = {path.name: path.read_bytes() for path in folder.glob("*.json")} | {"imgs.zip": stream.getvalue()}
        for name, value in (("HF_ENDPOINT", hub.address), ("HF_HUB_DISABLE_XET", "1"), ("HF_HOME", str(tmp_path / "hf"))):
            monkeypatch.setenv(name, value)
        looked = clone.snakemake("--dry-run", *targets)
        assert looked.code == 0 and "rule fetch" in looked.output, looked.output
        first = clone.snakemake(*targets)
        assert first.code != 0 and {"fetch slake", "prepare slake"} <= first.executed
        assert "need an application: register" in first.output and "raw/chexpert" in first.output
        asked = len(hub.tokens)
        again = clone.snakemake(targets[0])
        assert again.code == 0 and not again.executed and len(hub.tokens) == asked
    official.chexpert(clone.folder / "raw/chexpert")
    entries["chexpert"] |= {"allow_counts": True, "max_drops": 0.5}
    registry.write_text(yaml.safe_dump(entries, sort_keys=False))
    last = clone.snakemake(*targets)
    assert last.code == 0 and last.executed == {"fetch chexpert", "prepare chexpert"}, last.output
