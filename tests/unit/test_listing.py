"""Lists of data sets and models, one data set's page, and a seeded draw of groups."""

from pathlib import Path

import pytest
from PIL import Image

from medbench import cli, config, paths
from medbench.datasets.layouts import DiagnosisItem, Excluded
from medbench.datasets.rows import chosen_groups, drawn
from medbench.errors import MedbenchError
from medbench.stages import prepare
from medbench.verbs import listing
from tests.unit.test_data_helpers import card, entry, labelled, samples

ROOT = Path(__file__).parents[2]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> config.Config:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("MEDBENCH_REAL_DATA", raising=False)
    return config.from_files([ROOT / "config/nano.yaml"], ROOT)


def test_every_data_set_says_where_it_stands(loaded: config.Config) -> None:
    rows = {row[0]: row for row in listing.datasets(loaded).rows}
    assert set(rows) == set(loaded.datasets)
    assert rows["chexpert"][3:] == ("manual", "-", "research use", "223,414 / - / 234", "to be applied for")
    assert rows["pneumoniamnist"][4] == "checksum" and rows["slake"][4] == "first fetch" and rows["slake"][-1] == "to be fetched"
    prepare.run(prepare.params(loaded, "nano-radiology"), "nano-radiology")
    assert {row[0]: row[-1] for row in listing.datasets(loaded).rows}["nano-radiology"] == "prepared"


def test_one_data_set_is_shown_with_card_and_contact_sheet(loaded: config.Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert "to be applied for" in listing.show_dataset(loaded, "chexpert") and "Irvin" in listing.show_dataset(loaded, "chexpert")
    prepare.run(prepare.params(loaded, "nano-radiology"), "nano-radiology")
    assert cli.main(["datasets", "show", "nano-radiology", "--configfile", str(ROOT / "config/nano.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "card:" in shown and "contact sheet: results/contact/nano-radiology.png" in shown
    assert Image.open("results/contact/nano-radiology.png").width > 400
    with pytest.raises(MedbenchError, match="is in no registry"):
        listing.show_dataset(loaded, "nowhere")
    assert cli.main(["datasets", "nowhere"]) == 2


def test_every_model_with_weights_is_listed(loaded: config.Config) -> None:
    rows = {row[0]: row for row in listing.models(loaded).rows}
    assert rows["medsiglip"][6] == "yes" and rows["medsiglip"][8] == "878 M" and rows["clip"][7] == "3d74acf9a28c"
    assert rows["plip"][7] == "not pinned" and rows["medclip"][7] == "checksum" and rows["o3"][7] == "-"
    assert rows["mini-clip"][7] == "made here" and "raw-pixels" not in rows
    assert "mini-clip" not in {row[0] for row in listing.models(loaded, state=False).rows}


def test_the_pages_of_docs_hold_the_registries(loaded: config.Config) -> None:
    datasets, models = listing.datasets_page(loaded), listing.models_page(loaded)
    assert (ROOT / "docs/datasets.md").read_text() == datasets and (ROOT / "docs/models.md").read_text() == models
    assert "| ham10000 | HAM10000 | diagnosis | open |" in datasets and "## chexpert" in datasets and "stanfordmlgroup" in datasets
    assert "| biomedclip | BioMedCLIP | clip | specialist |" in models and "## phantom-radiology" not in datasets


# --- a draw


def items(n: int = 60) -> list[DiagnosisItem | Excluded]:
    rows = [DiagnosisItem(f"s{i}", f"g{i // 3}", "train" if i < 42 else "test", Path("x"), f"row {i}", "a") for i in range(n)]
    return [*rows, Excluded("another language", "row 99")]


def test_a_draw_takes_whole_groups_and_no_more_samples_than_asked_for() -> None:
    sizes = {"train": 20, "val": None, "test": 7}
    chosen = chosen_groups(items(), sizes, "0/toy")
    kept = [item for item in drawn(items(), chosen) if isinstance(item, DiagnosisItem)]
    counts = {split: sum(item.split == split for item in kept) for split in ("train", "test")}
    assert counts == {"train": 18, "test": 6}
    assert all(sum(item.group_id == group for item in kept) == 3 for group in {item.group_id for item in kept})
    assert chosen == chosen_groups(reversed(items()), sizes, "0/toy") != chosen_groups(items(), sizes, "1/toy")
    assert len(chosen_groups(items(), {"train": 1, "test": 1}, "0/toy")) == 2, "at least one group of each"
    left = [item.reason for item in drawn(items(), chosen) if isinstance(item, Excluded)]
    assert left.count("not drawn") == 36 and left.count("another language") == 1


def test_a_drawn_data_set_is_prepared_and_says_what_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    prepare.run(entry(labelled(tmp_path / "raw"), sample={"train": 6, "val": None, "test": 2}), "toy")
    assert samples("train").height + samples("val").height == 6 and samples("test").height == 2
    assert card()["excluded"]["not drawn"]["rows"] == 4 and paths.card("toy").exists()
