"""The grid and who is in-domain."""

from pathlib import Path

import pytest

from medbench import cells, cli, config
from medbench.cells import Cell
from medbench.errors import MedbenchError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo() -> config.Config:
    return config.from_files([ROOT / "config" / "config.yaml"], ROOT)


def test_every_diagnosis_set_gets_the_baseline(demo: config.Config) -> None:
    grid = cells.grid(demo)
    for dataset in demo.run.datasets:
        if demo.datasets[dataset].task == "diagnosis":
            assert Cell(dataset, "raw-pixels", "lp") in grid
    assert len(grid) == len(set(grid))


def test_only_possible_cells(demo: config.Config) -> None:
    for cell in cells.grid(demo):
        cells.check(demo, cell)
    with pytest.raises(MedbenchError, match="cannot run"):
        cells.check(demo, Cell("phantom-radiology", "raw-pixels", "ots"))
    with pytest.raises(MedbenchError, match="model 'gpt' is in no registry"):
        cells.check(demo, Cell("phantom-radiology", "gpt", "ots"))


def test_a_model_or_mode_without_a_cell_is_named(demo: config.Config) -> None:
    assert cli.without_cells(demo) == []
    run = {"run": "x", "models": ["mini-clip", "mini-llava"], "datasets": ["phantom-radiology"], "modes": ["ots", "lora", "ots-blank"]}
    chosen = config.load(run, ROOT)
    assert {cell.model for cell in cells.grid(chosen) if chosen.models[cell.model].role != "baseline"} == {"mini-clip"}
    line = "mode ots-blank is run by no model of the run on any of its data sets"
    assert cli.without_cells(chosen) == ["model mini-llava answers no data set of the run in any of its modes", line]
    assert f"NO CELL: {line}" in cli.warnings(chosen, [], False, lambda *job: None)  # type: ignore[arg-type]
    untrained = {name: entry.model_copy(update={"test_only": True}) for name, entry in chosen.datasets.items()}
    assert "lora" not in " ".join(cli.without_cells(chosen._replace(datasets=untrained))), "the line TEST ONLY says it"


def test_in_domain_is_a_property_of_specialist_and_modality(demo: config.Config) -> None:
    assert cells.is_in_domain(demo, "mini-medclip", "phantom-radiology")
    assert not cells.is_in_domain(demo, "mini-medclip", "phantom-dermatology")
    assert not any(cells.is_in_domain(demo, "mini-clip", dataset) for dataset in demo.run.datasets)
    by_name = {candidate.model: candidate for candidate in cells.candidates(demo)}
    assert by_name["mini-medsiglip"].in_domain >= {"phantom-radiology", "phantom-pathology"}
    assert by_name["mini-siglip"].in_domain == frozenset()
