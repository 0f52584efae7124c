"""Registries and runs: every mistake is one clear line."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config

from medbench import cells, cli, config
from medbench.datasets import layouts
from medbench.errors import MedbenchError
from medbench.planning import prices
from medbench.stages import embed, prepare, prompts
from medbench.verbs import docs, listing

ROOT = Path(__file__).resolve().parents[2]
RUN = {"run": "trial", "models": ["mini-clip"], "datasets": ["phantom-radiology"], "modes": ["ots"]}


def registries(tmp_path: Path, **changes: Any) -> Path:
    """A copy of the shipped registries; `models={"x": {...}}` adds or replaces entries."""
    (tmp_path / "config").mkdir()
    for name in ("models", "datasets", "modes", "templates"):
        shutil.copy2(ROOT / "config" / f"{name}.yaml", tmp_path / "config")
    for name, entries in changes.items():
        path = tmp_path / "config" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **entries}))
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
        ({"modells": ["x"]}, "unknown key 'modells' (value ['x']), did you mean 'models'?"),
        ({"statistics": {"n_resample": 100}}, "unknown key 'statistics.n_resample' (value 100), did you mean 'n_resamples'?"),
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
        ({"checkpoint": ""}, "checkpoint: String should have at least 1 character"),
        ({"tasks": ["diagnosis", "diagnosiss"]}, "`tasks` names 'diagnosiss': choose from diagnosis, mcq, vqa"),
        ({"overrides": {"fly": {}}}, "names mode 'fly'"),
        ({"overrides": {"lora": {"rank": 3}}}, "unknown key 'rank'"),
        ({"modes": ["ots"], "overrides": {"lora": {"r": 3}}}, "cannot run mode 'lora', whose kind in config/modes.yaml is lora; a "),
    ],
)
def test_a_wrong_model_is_one_clear_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    text = complaint(RUN, registries(tmp_path, models={"wrong": {**MODEL, **change}}))
    assert words in text
    assert "model wrong" in text


@pytest.mark.parametrize(
    ("modes", "words"),
    [
        ({"wrong": {"kind": "probe", "label": 32}}, "mode wrong: unknown key 'label' (value 32), did you mean 'labels'?"),
        ({"wrong": {"kind": "probe", "c_values": []}}, "c_values: List should have at least 1 item"),
        ({"wrong": {"kind": "probe", "c_values": [0.1, 0]}}, "c_values.1: Input should be greater than 0"),
        ({"ots": {"kind": "probe"}}, ": cannot run mode 'ots', whose kind in mine.yaml is probe; a remote model runs zero-shot"),
    ],
)
def test_a_wrong_mode_of_ones_own_is_one_clear_line(tmp_path: Path, modes: dict[str, Any], words: str) -> None:
    (registries(tmp_path) / "mine.yaml").write_text(yaml.safe_dump(modes))
    assert words in complaint({**RUN, "registries": {"modes": "mine.yaml"}}, tmp_path)


def test_a_number_in_place_of_a_name_is_not_spelt(tmp_path: Path) -> None:
    """YAML takes 007 for 7, and 010 for 8."""
    (tmp_path / "r.yaml").write_text("run: 010\n")
    found = complaint({**RUN, **config.read_yaml(tmp_path / "r.yaml", "r.yaml")}, registries(tmp_path))
    assert "run: Input should be a valid string (found 8: quote it as it is written)" in found


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


def bomb(kind: str) -> str:
    """Ten aliases of ten aliases of ...: 10^9 values, by lists, by mappings, by merges, or of one long text."""
    if kind == "text":
        return "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 10_000) + "]"
    lines = ["a0: &a0 {k: 1}" if kind == "merges" else "a0: &a0 [x]"]
    for level in range(1, 10):
        before = ", ".join([f"*a{level - 1}"] * 10)
        made = {"lists": f"[{before}]", "mappings": "{" + ", ".join(f"k{n}: *a{level - 1}" for n in range(10)) + "}"}
        lines.append(f"a{level}: &a{level} " + made.get(kind, f"{{<<: [{before}]}}"))
    return "\n".join(lines)


LARGE = "holds more than 4194304 characters"
DEEP = "is nested more than 32 levels deep"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((bomb(kind), LARGE) for kind in ("lists", "mappings", "merges", "text")),
        ("a: " + "x" * 5_000_000, LARGE),
        ("a: [" + "1," * 500_000 + "]", LARGE),
        ("a: &a [*a]", r"its alias \*a stands inside of what it stands for"),
        ("a: &a {b: {c: *a}}", r"its alias \*a stands inside"),
        ("a: &a {<<: *a}", r"its alias \*a stands inside"),
        ("a: " + "[" * 100_000, DEEP),
        ("a: " + "{x: " * 100_000, DEEP),
        ("\n".join(" " * n + "a:" for n in range(1_000)), DEEP),
        ("- " * 5_000, DEEP),
        ("seed: " + "9" * 5_000, "not readable as YAML: Exceeds the limit"),
        ("seed: " + "9" * 4_000, "seed: a number of 132[0-9]{2} bits"),
        ("seed: 0x" + "f" * 4_000, "seed: a number of 16000 bits"),
        ("a: {b: [1, .nan]}", "a.b: nan is no finite number"),
        ("a: -.inf", "a: -inf is no finite number"),
        ("a: 1.0e+999", "a: inf is no finite number"),
        ('a: {b: "x\\0y"}', r"a.b: holds the control character '\\x00'"),
        ('a: "\\e[31m"', r"a: holds the control character '\\x1b'"),
        ('"a\\0": 1', r": holds the control character '\\x00'"),
        ("a: 2020-01-01", "a: holds a date; give text"),
        ("a: 2020-13-45", "not readable as YAML: month must be in"),
        ("a: !!timestamp x", "not readable as YAML"),
        ("a: !!int x", "not readable as YAML"),
        ("a: !!binary aGVsbG8=", "a: holds a bytes"),
        ("a: !!set {b}", "a: holds a set"),
        ("a: !!python/object/apply:os.system [ls]", "not readable as YAML: could not determine a constructor"),
        ("a: !x 1", "not readable as YAML: could not determine a constructor"),
        ("? [1, 2]\n: 3", "not readable as YAML"),
        ("? {a: 1}\n: 3", "not readable as YAML"),
        ("a: 1\n---\nb: 1", "not readable as YAML: expected a single document"),
        ("a: *nowhere", "not readable as YAML: found undefined alias"),
        ("a: [1", "not readable as YAML"),
        ("- a", "holds list, not a mapping"),
        ("", "holds NoneType, not a mapping"),
        ("3", "holds int, not a mapping"),
        ("a: 1\n1: 2\n1: 3", "not readable as YAML: duplicate key 1"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line_at_once(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(MedbenchError, match=f"x.yaml: {words}") as error:
        config.read_yaml(path, "x.yaml")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "endless", "binary"])
def test_what_is_no_text_file_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.yaml"
    make: dict[str, Any] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "endless": lambda: path.symlink_to("/dev/zero"),
        "binary": lambda: path.write_bytes(b"a: \xff\xfe"),
    }
    make.get(kind, lambda: None)()
    words = {"absent": "the file does not exist", "binary": "not readable as YAML: 'utf-8' codec"}
    with pytest.raises(MedbenchError, match=f"x.yaml: {words.get(kind, 'is a .*, not a file')}"):
        config.read_yaml(path, "x.yaml")


def test_many_keys_are_read_in_linear_time(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("\n".join(f"k{number}: 1" for number in range(60_000)))
    assert len(config.read_yaml(tmp_path / "x.yaml", "x.yaml")) == 60_000


def nested(levels: int) -> Any:
    """As Snakemake, which reads runs itself, hands an alias bomb on; and one that holds itself."""
    value: Any = ["x"]
    for _ in range(levels):
        value = [value] * 10
    return value


CYCLE: dict[str, Any] = {}
CYCLE["itself"] = CYCLE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"statistics": nested(9)}, LARGE),
        ({"statistics": CYCLE}, DEEP),
        ({"seed": 10**4000}, "seed: a number of 13288 bits"),
        ({"seed": 2**63}, "seed: a number of 64 bits"),
        ({"statistics": {"margin": float("inf")}}, "statistics.margin: inf is no finite number"),
        ({"statistics": {"margin": "1e999"}}, "statistics.margin"),
        ({"statistics": {"n_resamples": 10**12}}, "statistics.n_resamples"),
        ({"statistics": {"margins": {"f1": 0.1}}}, "no verdict is given on f1: choose from accuracy, auroc, closed_accuracy, judge_score"),
        ({"statistics": {"margins": {"auroc": 0}}}, "statistics.margins.auroc"),
        ({"run": "a" * 101}, "a name has at most 100 characters, not 101"),
        ({"models": ["m" * 300]}, "a name has at most 100 characters, not 300"),
        ({"run": "a\0b"}, "run: holds the control character"),
        ({"models": "x" * 10_000}, "models: Input should be a valid list"),
        ({"statistics": ["no"]}, "statistics"),
        ({"registries": {"models": "config"}}, "config: is a folder, not a file"),
    ],
)
def test_a_run_beyond_limits_is_one_short_line(change: dict[str, Any], words: str) -> None:
    text = complaint({**RUN, **change}, ROOT)
    assert words in text and len(text) < 500


def test_a_long_name_in_a_registry_is_one_short_line(tmp_path: Path) -> None:
    text = complaint(RUN, registries(tmp_path, models={"m" * 100_000: MODEL}))
    assert "invalid name; use lower-case letters, digits, dots and dashes, at most 100" in text and len(text) < 500


SECRET = "Planted0Secret1Never2Appears"
MINE = {"task": "vqa", "layout": "table", "modality": "x-ray", "specialty": "radiology"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"https://user:{SECRET}@host/file", "a password before its host"),
        (f"https://{SECRET}@host/file", "a password before its host"),
        (f"ftp://user:{SECRET}@host/file", "a password before its host"),
        (f"https://host/file?sv=2022&sig={SECRET}", "what looks like a key in its `sig`"),
        (f"https://host/file?X-Amz-Date=1&X-Amz-Signature={SECRET}", "in its `X-Amz-Signature`"),
        (f"https://host/file?token={SECRET}", "in its `token`"),
        (f"https://host/file?e=1&h={SECRET}", "in its `h`"),
        (f"https://host/file#access_token={SECRET}", "in its `access_token`"),
        ("https://host/file?password=x", "in its `password`"),
        ("https://user:${PW}x@host/file", "a password before its host"),
    ],
)
@pytest.mark.parametrize("key", ["url", "urll", "checksum"])
def test_credentials_in_an_address_are_refused_and_not_repeated(tmp_path: Path, url: str, words: str, key: str) -> None:
    entry = {**MINE, "source": {"kind": "files", "files": [{"url": "https://host/x", "name": "file", key: url}]}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"mine": entry}))
    with pytest.raises(MedbenchError) as error:
        config.read_yaml(tmp_path / "x.yaml", "x.yaml")
    text = str(error.value)
    assert words in text and "write it as ${NAME}, and export NAME" in text
    assert SECRET not in text
    assert f"mine.source.files.{key}" in text


@pytest.mark.parametrize(
    "url",
    [
        "https://host/file?download=1",
        "https://host/a@b/file?format=original&v=2024-01-01",
        "https://${USER_NAME}:${PW}@host/file",
        "https://user:${PW}@host/file",
        "https://${TOKEN}@host/file",
        "https://host/file?sig=${SIG}",
        "${ALL}",
        "https://host/${KEY}/file",
    ],
)
def test_addresses_without_credentials_or_with_variables_are_admitted(tmp_path: Path, url: str) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"url": url}))
    assert config.read_yaml(tmp_path / "x.yaml", "x.yaml") == {"url": url}


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_file_lands_in_the_folder_of_its_data_set(name: str) -> None:
    for entry in ({"name": name}, {"name": "x", "unpack": name}):
        with pytest.raises(ValueError, match="must lie inside the folder of the data set"):
            config.RemoteFile.model_validate({"url": "https://host/x", **entry})


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


def test_dictionaries_of_several_files_are_merged_as_snakemake_does_it(tmp_path: Path) -> None:
    texts = (
        {**RUN, "seed": 3, "statistics": {"margins": {"auroc": 0.05}, "level": 0.9}, "judge": None},
        {"statistics": {"margins": {"closed_accuracy": 0.03}}, "judge": {"models": ["mini-llava"]}},
        {"statistics": {"margins": {"auroc": 0.04}}, "near_duplicates": {}},
    )
    merged: dict[str, Any] = {}
    for name, text in zip("abc", texts, strict=True):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(text))
        update_config(merged, text)
    root = registries(tmp_path)
    loaded = config.from_files([tmp_path / f"{name}.yaml" for name in "abc"], root)
    assert loaded.run == config.load(merged, root).run
    assert loaded.run.statistics.margins == {"auroc": 0.04, "closed_accuracy": 0.03}


def test_resolved_configuration_reads_back_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = config.load(RUN, ROOT)
    path = tmp_path / "resolved.json"
    path = cli.write_resolved(loaded)
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


# --- entries of one's own


OWN_SET = {
    "task": "diagnosis", "layout": "table", "raw_dir": "moles", "modality": "dermoscopy", "specialty": "dermatology", "classes": ["a", "b"],
    "prompts": {"main": {"a": ["an a"], "b": ["a b"]}},
}  # fmt: skip
OWN_MODEL = {
    "family": "clip",
    "role": "specialist",
    "architecture": "clip",
    "pretrained_on": ["dermoscopy"],
    "checkpoint": "${WEIGHTS}/mine",
}


def own_run(**changes: Any) -> dict[str, Any]:
    return {**RUN, "datasets": ["my-moles"], "registries": {"datasets": "my-data.yaml"}, **changes}


@pytest.fixture
def moles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with own files, which is not the repository."""
    folder = tmp_path / "work"
    (folder / "moles").mkdir(parents=True)
    (folder / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": OWN_SET}))
    monkeypatch.chdir(folder)
    return folder


def test_own_entries_are_added_to_those_that_come_with_medbench(moles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines included; an entry of the same name stands above; `${VARIABLE}` and `~` work in paths and in checkpoints."""
    (moles / "my-models.yaml").write_text(yaml.safe_dump({"mine": OWN_MODEL, "clip": {**OWN_MODEL, "checkpoint": "~/mine"}}))
    (moles / "my-modes.yaml").write_text("lp-3: {kind: probe, labels: 3}\n")
    (moles / "my-templates.yaml").write_text("max_new_tokens: 7\n")
    (moles / "home/mine").mkdir(parents=True)
    for name, value in {"HOME": moles / "home", "WEIGHTS": moles / "home", "HERE": moles}.items():
        monkeypatch.setenv(name, str(value))
    own = {"datasets": "my-data.yaml", "models": "${HERE}/my-models.yaml", "modes": "~/../my-modes.yaml", "templates": "my-templates.yaml"}
    loaded = config.load(own_run(registries=own, models=["mini-clip", "mine", "clip"], modes=["ots", "lp-3"]), ROOT)
    assert {"my-moles", "ham10000"} <= set(loaded.datasets) and {"lp", "lp-3"} <= set(loaded.modes)
    assert loaded.asking.max_new_tokens == 7 and loaded.asking.yes_no == "{question} Answer yes or no."
    assert {cell.model for cell in cells.grid(loaded)} == {"mini-clip", "mine", "clip", "raw-pixels"}
    assert config.checkpoint(loaded, "mine") == config.checkpoint(loaded, "clip") == str(moles / "home/mine")


def test_a_mistake_in_an_own_entry_names_its_file(moles: Path) -> None:
    (moles / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": {**OWN_SET, "colour": 1}}))
    assert complaint(own_run(), ROOT).startswith("my-data.yaml: data set my-moles: unknown key 'colour'")
    assert complaint(own_run(registries={"datasets": "nowhere.yaml"}), ROOT).startswith("nowhere.yaml: the file does not exist")
    (moles / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": OWN_SET}))
    assert "'my-molse' is not in my-data.yaml; did you mean my-moles? choose from " in complaint(own_run(datasets=["my-molse"]), ROOT)


def test_all_mistakes_of_an_entry_are_said_at_once(moles: Path) -> None:
    wrong = {**OWN_SET, "colour": 1, "modallity": "x-ray", "classes": [False, "b"], "validation": 2}
    del wrong["specialty"]
    (moles / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": wrong}))
    message = complaint(own_run(), ROOT)
    assert message.startswith("my-data.yaml: data set my-moles: 5 mistakes: ")
    for said in ("key 'specialty' is missing", "classes.0: ", "validation: ", "unknown key 'colour'", "did you mean 'modality'?"):
        assert said in message


def test_folders_whose_images_are_patients_are_said_before_the_first_job(moles: Path) -> None:
    (moles / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": {**OWN_SET, "layout": "imagefolder"}}))
    (line,) = cli.data_notes(config.load(own_run(), ROOT))
    assert line == "my-moles: every image counts as a patient of its own: where patients have several, set options.group"
    (moles / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": {**OWN_SET, "layout": "imagefolder", "options": {"group": "(p.)"}}}))
    assert cli.data_notes(config.load(own_run(), ROOT)) == []


def test_an_own_set_is_not_listed_as_open(moles: Path) -> None:
    rows = {row[0]: row for row in listing.datasets(config.load(own_run(registries={"datasets": "my-data.yaml"}), ROOT)).rows}
    assert rows["my-moles"][3] == "own" and rows["ham10000"][3] == "open" and rows["mednist"][3] == "open"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": [False, "b"]}, 'classes.0: Input should be a valid string (found False: quote it, as "no", "off" or "false")'),
        ({"classes": ["a", True]}, 'classes.1: Input should be a valid string (found True: quote it, as "yes", "on" or "true")'),
        ({"classes": ["a", None]}, 'classes.1: Input should be a valid string (found None: quote it, as "null" or "none")'),
        ({"classes": [0, 1]}, "classes.0: Input should be a valid string (found 0: quote it as it is written)"),
        ({"raw_dir": ""}, "raw_dir: String should have at least 1 character"),
        ({"classes": "a, b"}, "classes: Input should be a valid list (found 'a, b')"),
        ({"prompts": {"main": {"a": [" "], "b": ["a b"]}}}, "prompt set 'main' must give every class of ['a', 'b'] a prompt"),
        ({"prompts": {"main": {"a": ["an a", ""], "b": ["a b"]}}}, "prompt set 'main' must give every class of ['a', 'b'] a prompt"),
        ({"task": "vqa"}, "`classes` and `prompts` are for images with labels, and the task is vqa: remove them"),
        ({"modality": "xray"}, "modality 'xray' is spelt otherwise elsewhere; did you mean x-ray?"),
        ({"modality": "x-rays"}, "did you mean x-ray?"),
        ({"modality": "ultra-sound"}, "did you mean ultrasound?"),
    ],
)
def test_a_wrong_own_set_is_one_clear_line(moles: Path, change: dict[str, Any], words: str) -> None:
    (moles / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": {**OWN_SET, **change}}))
    assert words in complaint(own_run(), ROOT)


def test_a_modality_that_a_model_spells_otherwise(moles: Path) -> None:
    (moles / "my-models.yaml").write_text(yaml.safe_dump({"mine": {**OWN_MODEL, "checkpoint": "a/b", "pretrained_on": ["xray"]}}))
    run = own_run(registries={"datasets": "my-data.yaml", "models": "my-models.yaml"}, models=["mine"])
    assert "my-models.yaml: model mine: pretrained_on 'xray' is spelt otherwise elsewhere; did you mean x-ray?" in complaint(run, ROOT)


@pytest.mark.parametrize(
    ("modality", "said"), [("dermatoscopy", "dermoscopy"), ("histo-pathologie", "histopathology"), ("oct", None), ("blood-smear", None)]
)
def test_a_modality_that_looks_like_another_is_said_at_the_start(moles: Path, modality: str, said: str | None) -> None:
    (moles / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": {**OWN_SET, "modality": modality}}))
    expected = [f"my-moles: no model knows {modality!r}; did you mean {said!r}?"] if said else []
    assert cli.doubtful_modalities(config.load(own_run(), ROOT)) == expected


def test_a_run_file_does_not_become_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run is stands in its own file, or in one that is named before it."""
    (tmp_path / "mine.yaml").write_text("datasets: [phantom-radiology]\nmodels: [mini-clip]\n")
    (tmp_path / "more.yaml").write_text("run: mine\nmodes: [ots]\n")
    with pytest.raises(MedbenchError, match=r"mine\.yaml: says no run, modes, which would be those of the demo in config/config\.yaml"):
        config.require_whole([tmp_path / "mine.yaml"])
    config.require_whole([tmp_path / "mine.yaml", tmp_path / "more.yaml"])
    config.require_whole([tmp_path / "mine.yaml"], {"run": "mine", "modes": ["ots"]})
    config.require_whole([])
    config.require_whole([ROOT / "config/now.yaml"])
    assert cli.main(["datasets", "--configfile", str(tmp_path / "mine.yaml")]) == 2
    assert "says no run, modes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("image,label,split,group\na.png,a,test,p\n\n", False),
        ("image,label,split,group\na.png,a,test,p\nb.png,b,Training,q\n", True),
        ("image,label,group\n", False),
        ("image,label,patient\na.png,a,p\n", True),
    ],
)
def test_a_table_without_a_row_for_training_is_known_at_the_start(moles: Path, text: str, has: bool) -> None:
    """Its adapted cells and baselines are none; a broken table is left to `prepare`."""
    (moles / "moles/labels.csv").write_text(text)
    loaded = layouts.with_test_only(config.load(own_run(modes=["ots", "lp", "lora"]), ROOT))
    found = {f"{cell.model}/{cell.mode}" for cell in cells.grid(loaded)}
    assert found == ({"mini-clip/ots", "mini-clip/lp", "mini-clip/lora", "raw-pixels/lp"} if has else {"mini-clip/ots"})
    assert cli.untrained(loaded) == ([] if has else ["my-moles: no row is for training: lp, lora and baselines are left out"])
    if not has:
        with pytest.raises(MedbenchError, match="no model of the run can answer data set 'my-moles', which has no row for training"):
            cells.grid(layouts.with_test_only(config.load(own_run(modes=["lp"]), ROOT)))
        with pytest.raises(MedbenchError, match="the data set has no row for training; choose a mode off the shelf"):
            cells.check(loaded, cells.Cell("my-moles", "mini-clip", "lora"))
    (moles / "moles/labels.csv").write_text("nothing")
    assert not layouts.with_test_only(config.load(own_run(), ROOT)).datasets["my-moles"].test_only


@pytest.mark.timeout(60)
def test_a_table_that_is_a_pipe_is_not_waited_for_at_the_start(moles: Path) -> None:
    os.mkfifo(moles / "moles/labels.csv")
    assert not layouts.with_test_only(config.load(own_run(), ROOT)).datasets["my-moles"].test_only


def test_folders_and_shards_without_training_are_known_at_the_start(moles: Path) -> None:
    for kind, names, has in (
        ("imagefolder", ("test/a/0.png", "test/b/1.png"), False),
        ("imagefolder", ("Training/a/0.png", "test/b/1.png"), True),
        ("imagefolder", ("a/0.png", "b/1.png"), True),
        ("hub-vqa", ("data/test-00000-of-00001.parquet",), False),
        ("hub-vqa", ("data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"), True),
    ):
        shutil.rmtree("moles")
        for name in names:
            (moles / "moles" / name).parent.mkdir(parents=True, exist_ok=True)
            (moles / "moles" / name).touch()
        changes: dict[str, Any] = {"task": "vqa", "classes": [], "prompts": {}} if kind == "hub-vqa" else {}
        (moles / "my-data.yaml").write_text(yaml.safe_dump({"my-moles": {**OWN_SET, "layout": kind, **changes}}))
        loaded = layouts.with_test_only(config.load(own_run(models=["mini-clip", "mini-llava"]), ROOT))
        assert loaded.datasets["my-moles"].test_only == (not has), names
        if kind == "hub-vqa" and not has:
            assert [cell.model for cell in cells.grid(loaded)] == ["mini-llava"], "baselines read the training questions"


# --- models behind an endpoint ----------------------------------------------------------------------------------------

SERVED = {
    "family": "f", "role": "generalist", "architecture": "openai", "checkpoint": "m", "pretrained_on": ["everyday"], "modes": ["ots"],
    "endpoint": {"url": "https://api.example.com/v1", "key": "EXAMPLE_KEY"},
}  # fmt: skip
ASKS = {"run": "trial", "models": ["mini-llava", "served"], "datasets": ["mine"], "modes": ["ots"]}
OURS = {
    "task": "vqa", "layout": "phantom-vqa", "modality": "x-ray", "specialty": "radiology", "options": {"kind": "radiology"},
    "about": {"licence": "PhysioNet Credentialed Health Data License 1.5.0"},
}  # fmt: skip


@pytest.fixture
def asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration of a run with a served model, with changed entries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_STORE", raising=False)

    def load(model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **run: Any) -> config.Config:
        shutil.rmtree("config", ignore_errors=True)
        root = registries(tmp_path, models={"served": SERVED | (model or {})}, datasets={"mine": OURS | (data or {})})
        return cells.with_left_out(config.load({**ASKS, **run}, root))

    return load


def test_data_go_to_nobody_unless_their_entry_says_so(asks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in ({}, {"send_to": []}, {"send_to": ["example.com", "api.example.org"]}):
        with pytest.raises(
            MedbenchError, match=r"data set mine: model served would send .* to api\.example\.com; its licence: PhysioNet .* 1\.5\.0"
        ):
            asks(data=data)
    for hosts in (["api.example.com"], ["*"]):
        assert cells.Cell("mine", "served", "ots") in cells.grid(asks(data={"send_to": hosts}))
    with pytest.raises(MedbenchError, match=r"add `send_to: \[127\.0\.0\.1\]` to its entry"):
        asks({"endpoint": {"url": "http://127.0.0.1:8000/v1"}})
    monkeypatch.setenv("SOME_URL", "http://user:secret-word@node7:8000/v1")
    with pytest.raises(MedbenchError, match="to node7;") as error:
        asks({"endpoint": {"url": "${SOME_URL}"}})
    assert "secret-word" not in str(error.value)
    assert cells.grid(asks(models=["mini-llava"])), "a run without the model asks nobody"


def test_what_may_not_be_sent_can_be_left_out(asks: Any) -> None:
    found = asks(unsent="leave-out")
    assert cells.Cell("mine", "served", "ots") not in (grid := cells.grid(found)) and cells.Cell("mine", "mini-llava", "ots") in grid
    assert (
        list(found.left_out) == ["mine/served/ots"]
        and "may not be sent to api.example.com (licence: PhysioNet" in found.left_out["mine/served/ots"]
    )
    assert config.from_resolved(cli.write_resolved(found)).left_out == found.left_out


def test_a_model_that_was_shut_down_leaves_its_cells_out_unless_they_are_made_or_kept(asks: Any) -> None:
    from medbench import paths
    from medbench.remote.store import Store

    gone = {"retired_on": "2020-01-01"}
    anywhere = {"send_to": ["*"]}
    assert not asks({"retired_on": "2999-01-01"}, anywhere).left_out
    assert list(asks(gone, anywhere).left_out.values()) == ["m was shut down on 2020-01-01, and none of its answers is kept in store"]
    place = paths.predictions("mine", "served", "ots")
    place.parent.mkdir(parents=True)
    place.touch()
    assert not asks(gone, anywhere).left_out, "it is made"
    place.unlink()
    with Store("openai", "m") as store:
        store.add("0" * 64, True, body={})
    assert not asks(gone, anywhere).left_out, "its answers may all be kept"
    note = paths.gone("mine", "served", "ots")
    note.parent.mkdir(parents=True)
    from medbench.remote.store import size

    note.write_text(f"{size('openai', 'm')}\n")
    assert "not all of its answers are kept" in next(iter(asks(gone, anywhere).left_out.values()))
    with Store("openai", "m") as store:
        store.add("1" * 64, True, body={})
    assert not asks(gone, anywhere).left_out, "more is kept than when it was tried"


PASTED = "sk-Planted0Secret1Never2Appears"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"endpoint": {"url": "https://x.org", "key": PASTED}}, "the name of an environment variable in capitals, never the key itself"),
        ({"endpoint": {"url": "https://x.org", "api_key": PASTED}}, "unknown key 'endpoint.api_key'"),
        ({"endpoint": {"url": f"https://u:{PASTED}@x.org"}}, "a password before its host"),
        ({"endpoint": {"url": f"https://x.org/v1?key={PASTED}"}}, "what looks like a key in its `key`"),
        ({"endpoint": None}, "key 'endpoint' is missing"),
        ({"endpoint": {}}, "key 'endpoint.url' is missing"),
        ({"checkpoint": None}, "key 'checkpoint' is missing"),
        ({"options": {"paramters": {}}}, "unknown key 'paramters'"),
        ({"options": {"detail": "huge"}}, "detail"),
        ({"architecture": "gemini", "options": {"detail": "low"}}, "`detail` is of chat completions"),
        ({"endpoint": {"url": "https://x.org", "concurrency": 0}}, "endpoint.concurrency"),
        ({"endpoint": {"url": "https://x.org", "batch": "half"}}, "endpoint.batch"),
        ({"same_as": "no-such-model"}, "same_as 'no-such-model' is in no registry"),
        ({"retired_on": "soon"}, "retired_on"),
    ],
)
def test_a_wrong_entry_of_a_served_model_is_one_line_without_its_key(asks: Any, model: dict[str, Any], words: str) -> None:
    with pytest.raises(MedbenchError) as error:
        asks(model, {"send_to": ["*"]})
    assert words in str(error.value) and "\n" not in str(error.value) and PASTED not in str(error.value)


def test_keys_are_declared_as_far_as_they_are_set(asks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asks(data={"send_to": ["*"]})
    assert cli.secrets(found) == []
    monkeypatch.setenv("EXAMPLE_KEY", PASTED)
    assert cli.secrets(found) == ["EXAMPLE_KEY"] and PASTED not in str(config.dump(found))


def test_the_start_says_what_may_be_asked_and_what_it_costs(asks: Any) -> None:
    found = asks(
        {"endpoint": {**SERVED["endpoint"], "price": "openai/o3"}, "max_new_tokens": 4096},
        {"send_to": ["*"], "expected": {"train": 1, "test": 2000}},
    )  # type: ignore[dict-item]
    [(_, _, _, line)] = prices.estimates(found, cells.grid(found))
    dollars = 2000 * (1000 * 2e-6 + 4096 * 8e-6)
    assert line.startswith(f"served: about 2,000 questions, 2,000,000 tokens in and at most 8,192,000 out: at most {dollars:,.2f} $")
    endpoint = {**SERVED["endpoint"], "price": "openai/o3", "batch": True}  # type: ignore[dict-item]
    half = asks({"endpoint": endpoint, "max_new_tokens": 4096}, {"send_to": ["*"], "expected": {"train": 1, "test": 2000}})
    assert f"at most {dollars / 2:,.2f} $" in prices.estimates(half, cells.grid(half))[0].said
    unknown = asks({"endpoint": {**SERVED["endpoint"], "price": "openai/no-such"}}, {"send_to": ["*"]})  # type: ignore[dict-item]
    assert "openai/no-such: is not known to genai-prices" in prices.estimates(unknown, cells.grid(unknown))[0].said


def test_the_study_can_start_and_names_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = cells.with_left_out(config.from_files([ROOT / "config/config.yaml", ROOT / "config/paper.yaml"], ROOT))
    assert {cell.split("/")[1] for cell in found.left_out} <= {"o3", "gemini-2.5-pro"} and cells.grid(found)
    assert "fairvlmed-vqa/o3/ots" in found.left_out
