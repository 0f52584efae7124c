"""Registries and runs: every mistake is one clear line."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from medbench import cells, cli, config
from medbench.errors import MedbenchError
from medbench.stages import embed, prepare, prompts
from medbench.verbs import docs

ROOT = Path(__file__).resolve().parents[2]
RUN = {"run": "trial", "models": ["mini-clip"], "datasets": ["phantom-radiology"], "modes": ["ots"]}


def registries(tmp_path: Path, **changes: Any) -> Path:
    """A copy of the shipped registries; `models={"x": {...}}` adds or replaces entries."""
    (tmp_path / "config").mkdir()
    for name in ("models", "datasets", "modes"):
        entries = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
        entries.update(changes.get(name, {}))
        (tmp_path / "config" / f"{name}.yaml").write_text(yaml.safe_dump(entries))
    shutil.copy2(ROOT / "config" / "templates.yaml", tmp_path / "config")
    return tmp_path


def complaint(run: dict[str, Any], root: Path) -> str:
    with pytest.raises(MedbenchError) as error:
        cells.grid(config.load(run, root))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["config", "nano"])
def test_shipped_runs_are_valid(name: str) -> None:
    loaded = config.from_files([ROOT / "config" / "config.yaml", ROOT / "config" / f"{name}.yaml"], ROOT)
    assert cells.grid(loaded)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modells": ["x"]}, "unknown key 'modells'"),
        ({"models": ["no-such"]}, "'no-such' is not in config/models.yaml"),
        ({"models": ["mini-clip", "mini-clip"]}, "listed twice"),
        ({"modes": ["fly"]}, "'fly' is not in config/modes.yaml"),
        ({"models": ["raw-pixels"], "modes": ["ots"]}, "can run none of the modes"),
        ({"modes": []}, "modes"),
        ({"run": "../evil"}, "invalid name"),
        ({"seed": "many"}, "seed"),
        ({"statistics": {"level": 2}}, "statistics.level"),
    ],
)
def test_a_wrong_run_is_one_clear_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    assert words in complaint({**RUN, **change}, registries(tmp_path))


MODEL = {"family": "clip", "role": "generalist", "architecture": "clip", "checkpoint": "some/where"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"family": None}, "family"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"role": "wizard"}, "role"),
        ({"checkpoint": None}, "either `checkpoint`"),
        ({"overrides": {"fly": {}}}, "names mode 'fly'"),
        ({"overrides": {"lora": {"rank": 3}}}, "unknown key 'rank'"),
        ({"modes": ["ots"], "overrides": {"lora": {"r": 3}}}, "cannot run mode 'lora'"),
    ],
)
def test_a_wrong_model_is_one_clear_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    text = complaint(RUN, registries(tmp_path, models={"wrong": {**MODEL, **change}}))
    assert words in text
    assert "model wrong" in text


def test_a_model_whose_architecture_has_no_file_is_refused_when_chosen(tmp_path: Path) -> None:
    entry = {**MODEL, "architecture": "perceptron", "modes": ["ots"], "overrides": {"lora": {"r": 3}}}
    root = registries(tmp_path, models={"later": entry})
    loaded = config.load(RUN, root)  # it may stand in the registry
    expected = "model 'later' has the architecture 'perceptron', which has no file in medbench/models"
    assert expected in complaint({**RUN, "models": ["mini-clip", "later"]}, root)
    with pytest.raises(MedbenchError, match=f"cell phantom-radiology/later/ots: {expected}"):
        cells.check(loaded, cells.Cell("phantom-radiology", "later", "ots"))
    for stage in (embed, prompts):
        with pytest.raises(MedbenchError, match="architecture perceptron: has no file in medbench/models"):
            stage.params(loaded, "phantom-radiology", "later")


def test_a_model_without_a_file_still_needs_a_checkpoint(tmp_path: Path) -> None:
    root = registries(tmp_path, models={"later": {**MODEL, "architecture": "perceptron", "checkpoint": None}})
    assert "either `checkpoint`" in complaint(RUN, root)


def test_a_data_set_whose_layout_has_no_file_is_refused_when_chosen(tmp_path: Path) -> None:
    entry = {"task": "vqa", "layout": "scroll", "modality": "x-ray", "specialty": "radiology"}
    root = registries(tmp_path, datasets={"later": entry})
    loaded = config.load(RUN, root)
    expected = "data set 'later' has the layout 'scroll', which has no file in medbench/datasets/layouts"
    assert expected in complaint({**RUN, "datasets": ["phantom-radiology", "later"]}, root)
    with pytest.raises(MedbenchError, match=f"cell later/mini-clip/ots: {expected}"):
        cells.check(loaded, cells.Cell("later", "mini-clip", "ots"))
    with pytest.raises(MedbenchError, match="layout scroll: has no file in medbench/datasets/layouts"):
        prepare.params(loaded, "later")


def test_a_model_without_a_family(tmp_path: Path) -> None:
    entry = {key: value for key, value in MODEL.items() if key != "family"}
    assert "key 'family' is missing" in complaint(RUN, registries(tmp_path, models={"wrong": entry}))


def test_a_checkpoint_folder_that_does_not_exist(tmp_path: Path) -> None:
    root = registries(tmp_path, models={"local": {**MODEL, "checkpoint": "/no/such/folder"}})
    assert "checkpoint /no/such/folder does not exist" in complaint({**RUN, "models": ["local"]}, root)


def test_raw_dir_names_the_variable_that_is_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDBENCH_REAL_DATA", raising=False)
    text = complaint({**RUN, "datasets": ["mednist"]}, registries(tmp_path))
    assert "MEDBENCH_REAL_DATA, which is not set" in text
    monkeypatch.setenv("MEDBENCH_REAL_DATA", str(tmp_path))
    (tmp_path / "again").mkdir()
    assert "does not exist" in complaint({**RUN, "datasets": ["mednist"]}, registries(tmp_path / "again"))


def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    root = registries(tmp_path)
    path = root / "config" / "modes.yaml"
    path.write_text(path.read_text() + "ots: {kind: probe}\n")
    assert "duplicate key" in complaint(RUN, root)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        # the inner merge is met from outside first, since mappings are put together from the top down
        ("a: {b: &y {<<: &z {k: 1, l: 1}, k: 2}}\nt: {<<: *y, l: 5}", {"a": {"b": {"k": 2, "l": 1}}, "t": {"k": 2, "l": 5}}),
        (
            "a: &x {p: 1}\nb: &y {p: 2, r: 1}\nc: {<<: [*x, *y], z: 1}",
            {"a": {"p": 1}, "b": {"p": 2, "r": 1}, "c": {"p": 1, "r": 1, "z": 1}},
        ),
    ],
)
def test_merge_keys_work_and_an_overridden_key_is_no_duplicate(tmp_path: Path, text: str, held: dict[str, Any]) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert config.read_yaml(tmp_path / "x.yaml", "x.yaml") == held


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a: &x {p: 1}\nb: {<<: *x, q: 1, q: 2}", "q"),
        ("a: {b: &x {p: 1, p: 2}}\nc: {<<: *x}", "p"),
        ("a: &x {p: 1}\nb: {<<: *x, <<: *x}", "<<"),
    ],
)
def test_duplicate_keys_beside_a_merge_are_refused(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(MedbenchError, match=f"duplicate key '{key}'"):
        config.read_yaml(tmp_path / "x.yaml", "x.yaml")


@pytest.mark.timeout(30)
def test_a_registry_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(MedbenchError, match=r"^x\.yaml: is a pipe, not a file; give a file$"):
        config.read_yaml(tmp_path / "x.yaml", "x.yaml")


def test_a_registry_with_merge_keys_is_read(tmp_path: Path) -> None:
    root = registries(tmp_path)
    with (root / "config" / "modes.yaml").open("a") as file:
        file.write("base: &base {kind: probe, n_splits: 3}\nmore: {<<: *base, n_splits: 4}\n")
    loaded = config.load(RUN, root).modes
    assert [loaded[name].model_dump()["n_splits"] for name in ("base", "more")] == [3, 4]


def test_second_file_replaces_lists(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(yaml.safe_dump({**RUN, "models": ["mini-clip", "mini-siglip"], "statistics": {"n_resamples": 500}}))
    second.write_text("models: [mini-medclip]\nstatistics: {level: 0.9}\n")
    loaded = config.from_files([first, second], registries(tmp_path))
    assert loaded.run.models == ("mini-medclip",)
    assert (loaded.run.statistics.n_resamples, loaded.run.statistics.level) == (500, 0.9)


def test_resolved_configuration_reads_back_equal(tmp_path: Path) -> None:
    import json

    loaded = config.load(RUN, ROOT)
    path = tmp_path / "resolved.json"
    path.write_text(json.dumps(config.dump(loaded)))
    assert config.from_resolved(path) == loaded


def test_generated_documents_are_in_step() -> None:
    for name, text in docs.generated().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name} is out of step with the code: run `make docs`"


@pytest.mark.parametrize("wrong", ["dataset", "model", "mode"])
def test_a_verb_by_hand_names_what_stands_in_no_registry(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"dataset": "nano-radiology", "model": "nano-clip", "mode": "ots"} | {wrong: "nowhere"}
    assert cli.main(["predict", *names.values()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ERROR: ") and said.count("\n") == 1
    word = "data set" if wrong == "dataset" else wrong
    assert said.startswith(f"ERROR: predict {'/'.join(names.values())}: {word} 'nowhere' is in no registry; choose from ")
