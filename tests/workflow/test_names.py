"""Clones in folders of any name: they work, or one line says why not."""

from pathlib import Path

import pytest

from tests.conftest import make_clone

CARD = "results/data/nano-radiology/card.json"


def test_a_clone_works_in_a_folder_of_almost_any_name(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "-sp ace '\" $HOME `x` ünï 100%s #*[a]!;&~ \\ a=b,c")
    outcome = clone.snakemake(CARD)
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"prepare nano-radiology"}


@pytest.mark.parametrize(("name", "mark"), [("a{x}b", "{"), pytest.param("a}b", "}", marks=pytest.mark.full), ("co:lon", ":")])
def test_a_name_that_cannot_work_is_one_line(tmp_path: Path, name: str, mark: str) -> None:
    clone = make_clone(tmp_path / name)
    outcome = clone.snakemake(CARD)
    assert outcome.code == 1
    said = [line for line in outcome.output.splitlines() if "ERROR" in line or "Error" in line]
    assert said == [line for line in said if line.startswith(f"ERROR: {clone.folder}: `{mark}` in its name is taken for the ")]
    assert len(said) == 1 and "Traceback" not in outcome.output


def test_raw_files_in_a_folder_with_braces_are_one_line(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone")
    raw = tmp_path / "raw{x}"
    raw.mkdir()
    (raw / "labels.csv").write_text("image,label,split,group\n")
    entry = f'{{task: diagnosis, layout: table, raw_dir: "{raw}", modality: mr, specialty: radiology, classes: [a, b],'
    clone.append("config/datasets.yaml", f"\ntoy: {entry} prompts: {{main: {{a: [a], b: [b]}}}}}}\n")
    outcome = clone.snakemake("results/data/toy/card.json")
    assert outcome.code == 1
    assert f"ERROR: {raw}/labels.csv: `{{` in its name is taken for" in outcome.output
