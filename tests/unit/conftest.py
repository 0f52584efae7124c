"""What tests of several files start from."""

from pathlib import Path

import pytest


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty raw folder beside the working directory."""
    (tmp_path / "work").mkdir()
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "raw"
