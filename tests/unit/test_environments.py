"""The lists of dependencies agree: conda environments ask for what pyproject.toml asks for, and the lock pins all of it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [wanted for extra in PROJECT["optional-dependencies"].values() for wanted in extra]


def name(requirement: str) -> str:
    return re.split(r"[<>=!\[; ]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("file", sorted((ROOT / "workflow/envs").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_conda_environment_asks_as_the_project_does(file: Path) -> None:
    pip = next(part["pip"] for part in yaml.safe_load(file.read_text())["dependencies"] if isinstance(part, dict))
    assert pip == sorted(pip)
    assert sorted(set(pip) - set(PROJECT["dependencies"])) == []


def test_the_lock_pins_every_dependency() -> None:
    pinned = {name(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    assert sorted({name(wanted) for wanted in (*PROJECT["dependencies"], *EXTRAS)} - pinned) == []
