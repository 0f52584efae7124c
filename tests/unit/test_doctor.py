"""The doctor: every line says what was found and what to do; a first contact settles what it can, and tells the same weights again."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import save_file

from medbench import cli, config
from medbench.doctor import FAULT, OK, WARNING, Line, contact, dataset, machine, weights
from medbench.jobs import fetching
from tests.unit import checkpoints, stub, tiny
from tests.unit.hubserver import serving
from tests.unit.stub import Said
from tests.unit.test_checkpoints import sharded

ROOT = Path(__file__).parents[2]
REGISTRY = config.from_files([ROOT / "config/config.yaml"], ROOT)
CONTACTS = ROOT / "config/contacts.yaml"
OPEN = yaml.safe_load(CONTACTS.read_text())["open"]


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's cache, no token, no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def entry(name: str, **more: Any) -> config.Config:
    """The registry with one model's entry changed; tiny weights have no checksums."""
    changed = REGISTRY.models[name].model_copy(update={"checksums": {}, **more})
    return REGISTRY._replace(models={**REGISTRY.models, name: changed}, digests={})


def in_folder(name: str, tmp_path: Path) -> config.Config:
    return entry(name, checkpoint=str(checkpoints.build(name, tmp_path / "m")), revision=None)


def in_cache(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> config.Config:
    """As the hub's client, or the download of MedCLIP's zip, leaves it."""
    checkpoints.cached(name, tmp_path / "hub")

    def download(address: str, path: Path, *given: Any) -> None:
        path.parent.mkdir(parents=True)
        checkpoints.medclip_zip(path)

    if name == "medclip":
        monkeypatch.setattr(fetching, "download", download)
        contact.loading.load(contact.Source(**config.sources.source(entry(name), name)))  # type: ignore[attr-defined]
    return entry(name)


def met(settings: config.Config, name: str, contacts: Path = CONTACTS) -> list[Line]:
    return list(contact.look(settings, name, contacts))


def of(lines: list[Line], subject: str) -> Line:
    [found] = [line for line in lines if line.subject.startswith(subject)]
    return found


# --- the first contact


@pytest.mark.parametrize("name", checkpoints.REPOSITORIES)
def test_every_study_model_is_met_in_its_own_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = in_cache(name, tmp_path, monkeypatch)
    assert (looked := weights.look(settings, name)).state == OK, looked
    lines = met(settings, name)
    assert not [line for line in lines if line.state == FAULT]
    main = checkpoints.REPOSITORIES[name][0]
    assert ("sha256" if "://" in main.name else f"checkpoint commit {main.commit}") in of(lines, "weights").found
    assert of(lines, "parameters").state == WARNING, "tiny weights are not the published ones"
    assert [line.found for line in lines if line.subject == "SHA-256"], "each file of weights"
    assert ("answer" in {line.subject for line in lines}) == (settings.models[name].kind == "generative")
    asked = [line.found for line in lines if line.subject == "open point"]
    assert len(asked) == len(OPEN.get(name, [])) + 1 and all(any(point["point"] in one for one in asked) for point in OPEN.get(name, []))
    assert not [one for one in asked if "does not fit this model" in one]
    stored = tmp_path / "contacts.yaml"
    stored.write_text("seen:\n  " + of(lines, "to store").found + "\n")
    again = met(settings, name, stored)
    assert any("as stored for this revision, byte for byte" in line.found for line in again)
    changed = yaml.safe_load(stored.read_text())
    [one] = changed["seen"].values()
    one["values"][0] += 10 * max(map(abs, one["values"]))
    one["ids"][0] += 1
    stored.write_text(yaml.safe_dump(changed))
    ids, values = (line for line in met(settings, name, stored) if line.state == FAULT)
    assert ids.subject == "first ids" and "the same weights compute otherwise" in values.remedy


def test_what_is_open_is_of_registered_models_and_has_its_check() -> None:
    assert set(OPEN) - {"every"} <= set(REGISTRY.models)
    assert {point["check"] for points in OPEN.values() for point in points} == set(contact.CHECKS)


def points(name: str, settings: config.Config) -> list[str]:
    return [line.found for line in met(settings, name) if line.subject == "open point"]


def test_open_points_are_settled_by_what_the_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [plip, _] = points("plip", in_folder("plip", tmp_path))
    assert "Settled: preprocessor_config.json says {'" in plip and "CLIP" in plip
    shutil.rmtree(tmp_path / "m")
    [tower, _] = points("llava-med", in_folder("llava-med", tmp_path))
    assert "Still open: the weights of openai/clip-vit-large-patch14-336 are not cached; `hf download openai/" in tower
    shards = sorted((tmp_path / "m").glob("model-*.safetensors"))
    tensors = {name: value for file in shards for name, value in tiny.load_file(file).items() if "vision_tower." in name}
    old = "model.vision_tower.vision_tower."
    theirs = {name.removeprefix(old): value.clone() for name, value in tensors.items()}
    for change, said in ((0.0, "Settled: yes: all"), (1.0, "Settled: no: 1 of")):
        first = min(name for name in theirs if name.endswith("weight"))
        theirs[first] = theirs[first] + change
        shutil.rmtree(tmp_path / "clip", ignore_errors=True)
        (tmp_path / "clip").mkdir()
        save_file(theirs, tmp_path / "clip/model.safetensors")
        shutil.rmtree(tmp_path / "hub", ignore_errors=True)
        checkpoints.hub_cache(tmp_path / "hub", "openai/clip-vit-large-patch14-336", "f" * 40, tmp_path / "clip")
        assert said in points("llava-med", in_folder_again("llava-med", tmp_path))[0]
    shutil.rmtree(tmp_path / "m")
    begins, vocabulary, ends, _ = points("vila-1.5", in_folder("vila-1.5", tmp_path))
    assert "Settled: " in begins and "medbench's prompt begins with [" in begins
    assert "words, " in vocabulary and "rows of weights" in vocabulary
    assert "For a person to judge: under this prompt it answered" in ends
    shutil.rmtree(tmp_path / "m")
    [ids, _] = points("llava-1.5", in_folder("llava-1.5", tmp_path))
    assert "Settled: they are [1, " in ids and "not [1, 3148, 1001" in ids


def in_folder_again(name: str, tmp_path: Path) -> config.Config:
    return entry(name, checkpoint=str(tmp_path / "m"), revision=None)


# --- broken ones


def no_tokenizer(folder: Path) -> str:
    for file in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / file).unlink(missing_ok=True)
    return "holds no tokenizer; add the tokenizer's files"


def missing_shard(folder: Path) -> str:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    return "names 2 shards, 1 are there, model-00002-of-00002.safetensors is absent; fetch the whole checkpoint"


def cut_off(folder: Path) -> str:
    sharded(folder)
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    return "its header promises"


def of_another_architecture(folder: Path) -> str:
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "model_type": "siglip"}))
    return "is a checkpoint of 'siglip', not of 'clip'"


def with_code(folder: Path) -> str:
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "auto_map": {"AutoModel": "code.Model"}}))
    return "names code of its own"


def no_weights(folder: Path) -> str:
    for file in tiny.weights(folder):
        file.unlink()
    return "holds no weights"


@pytest.mark.parametrize("damage", [no_tokenizer, missing_shard, cut_off, of_another_architecture, with_code, no_weights])
def test_a_broken_checkpoint_is_one_line(damage: Callable[[Path], str], tmp_path: Path) -> None:
    settings = in_folder("clip", tmp_path)
    said = damage(tmp_path / "m")
    [fault] = [line for line in met(settings, "clip") if line.state == FAULT]
    assert said in str(fault) and "\n" not in str(fault)


def test_what_is_not_here_is_said_with_the_way_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [_, fault] = met(REGISTRY, "llava-med")
    assert fault.state == FAULT and "microsoft/llava-med-v1.5-mistral-7b is not cached; `hf download microsoft/llava-med" in str(fault)
    assert f"--revision {REGISTRY.models['llava-med'].revision}`, `hf download openai/clip-vit-large-patch14-336" in str(fault)
    assert "is not downloaded" not in str(weights.look(REGISTRY, "medclip")) and weights.look(REGISTRY, "medclip").state == WARNING
    assert weights.look(REGISTRY, "medgemma").state == FAULT and "no token is there" in weights.look(REGISTRY, "medgemma").found
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert weights.look(REGISTRY, "medgemma").state == WARNING and "hf_secret" not in str(weights.look(REGISTRY, "medgemma"))
    assert "a baseline: it has no weights" in met(REGISTRY, "raw-pixels")[-1].found
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _, there, service = met(REGISTRY, "o3")
    assert "answers behind an endpoint" in there.found and service.state == FAULT
    assert "snakemake --cores all results/models/mini-clip" in met(REGISTRY, "mini-clip")[-1].remedy


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        (Said({"id": "m", "object": "model", "shutdown_date": "2027-01-14"}), WARNING, "on 2027-01-14; ask all before, and write"),
        (Said({"id": "m", "object": "model", "shutdown_date": "2099-12-31"}), OK, "on 2099-12-31, as its entry says"),
        (Said({"id": "m", "object": "model", "shutdown_date": None}), OK, "names no day"),
        (Said({"error": {"message": "no such page"}}, 404), OK, "names no day"),
        (Said({"error": {"message": "no key"}}, 401), FAULT, "status 401: no key; set the variable of its key"),
        (Said("{}", 503), WARNING, "does not say until when it serves it: status 503"),
        (Said("<html>"), WARNING, "does not say until when it serves it: no JSON"),
    ],
    ids=["announced", "noted", "none", "no page", "no key", "busy", "html"],
)
def test_a_service_says_when_it_shuts_a_model_down(said: Said, state: str, words: str) -> None:
    o3 = REGISTRY.models["o3"]
    with stub.serving() as server:
        server.batches.script = [said]
        endpoint = o3.endpoint.model_copy(update={"url": server.url, "key": None})  # type: ignore[union-attr]
        entry = o3.model_copy(update={"checkpoint": "m", "endpoint": endpoint, "retired_on": "2099-12-31"})
        *_, line = met(REGISTRY._replace(models={**REGISTRY.models, "o3": entry}), "o3")
        assert (line.state, server.batches.seen) == (state, ["GET /v1/models/m"]) and words in str(line) and "\n" not in str(line)


# --- the machine


def test_the_machine_is_looked_at_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    lines = list(machine.look(ROOT))
    assert [line.subject for line in lines][:3] == ["Python", "packages", "GPUs"]
    assert {"locks", "HF_HOME", "hub", "SLURM"} <= {line.subject for line in lines}
    assert all("\n" not in str(line) and "hf_secret" not in str(line) for line in lines)
    assert of(lines, "hub").found.endswith("a token is there") and of(lines, "locks").state == OK
    assert not list(Path().glob(".medbench-doctor*")), "nothing is left"
    assert list(machine.look(ROOT, needs_gpu=True))[2].state == (OK if torch.cuda.is_available() else FAULT)


def test_packages_are_held_against_project_and_lock(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nrequires-python = ">=3.99"\ndependencies = ["numpy>=99", "absent-one>=1", "pyyaml>=5"]\n'
    )
    (tmp_path / "requirements.lock").write_text("pyyaml==5.0 \\\n    --hash=sha256:00\nabsent-two==1\n")
    python, packages = machine._packages(tmp_path)
    assert (python.state, packages.state) == (FAULT, FAULT)
    assert "2 do not fit: numpy" in packages.found and "absent-one is missing (>=1)" in packages.found
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11"\ndependencies = ["pyyaml>=5"]\n')
    python, packages = machine._packages(tmp_path)
    assert (python.state, packages.state) == (OK, WARNING) and "1 differ from requirements.lock: pyyaml" in packages.found


def test_the_hub_is_asked_and_offline_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert list(machine._hub())[1].state == WARNING and "cannot be reached" in list(machine._hub())[1].found
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        assert list(machine._hub())[1].found.startswith("reached; no token is there")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        found = list(machine._hub())[1]
        assert found.state == WARNING and "does not say whose the token is" in found.found and "hf_secret" not in str(found)


def program(folder: Path, name: str, said: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    (folder / name).chmod(0o755)


def test_the_profile_names_partitions_and_accounts_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles/slurm").mkdir(parents=True)
    profile = tmp_path / "profiles/slurm/profile.yaml"
    profile.write_text("executor: slurm\n")
    monkeypatch.setenv("PATH", "")
    [line] = machine._slurm(tmp_path)
    assert line.state == OK and "sbatch is not on the PATH" in line.found
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    for name, said in (("sbatch", ""), ("sinfo", "cpu\ngpu"), ("sacctmgr", "lab")):
        program(tmp_path / "bin", name, said)
    for resources, said in (
        ("", "has no default partition, and the profile names none; add slurm_partition"),
        ("default-resources: {slurm_partition: gpus}", "names partition gpus; choose from cpu, gpu"),
        ("default-resources: [slurm_partition=gpu, slurm_account=ours]", "names account ours; choose from lab"),
        ("default-resources: {slurm_partition: gpu, slurm_account: lab}", "partition gpu of cpu, gpu"),
    ):
        profile.write_text(f"executor: slurm\n{resources}\n")
        assert said in str(list(machine._slurm(tmp_path))[-1]), resources


def test_a_disk_that_cannot_be_written_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: "cache" not in str(place))
    (tmp_path / "cache").mkdir()
    assert "cache cannot be written" in of(list(machine._disks()), "disk of downloads").found


# --- data sets


def test_a_data_set_is_looked_at_before_and_after_it_is_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(dataset.look(REGISTRY, "nano-radiology"))
    assert [line.state for line in lines] == [OK] * 3 and lines[-1].found.startswith("not yet")
    assert cli.main(["prepare", "nano-radiology"]) == 0
    lines = list(dataset.look(REGISTRY, "nano-radiology"))
    assert "203 / 78 / 147 rows (train / val / test); every byte as written" in lines[2].found
    table = tmp_path / "results/data/nano-radiology/test.parquet"
    table.write_bytes(table.read_bytes() + b"x")
    capsys.readouterr()
    assert cli.main(["doctor", "nano-radiology"]) == 1
    shown = capsys.readouterr()
    assert "is not the file that its job wrote (altered); `snakemake --cores all results/data/nano-radiology/train.parquet`" in shown.out
    assert "fault" in shown.err and "Traceback" not in shown.err
    for damaged in ("", '{"splits": ', "null", "{}", '{"drops": {"x": 3}}'):
        (tmp_path / "results/data/nano-radiology/card.json").write_text(damaged)
        assert cli.main(["doctor", "nano-radiology"]) == 1
        assert "card.json" in capsys.readouterr().out


def test_files_that_need_an_application_or_are_not_there_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [_, line, *_] = dataset.look(REGISTRY, "chexpert")
    assert line.state == FAULT and "its files need an application" in line.found
    own = REGISTRY.datasets["ham10000"].model_copy(update={"raw_dir": str(tmp_path / "gone"), "source": None})
    [_, line, *_] = dataset.look(REGISTRY._replace(datasets={"own": own}), "own")
    assert line.state == FAULT and "gone does not exist" in line.found
    (tmp_path / "gone").mkdir()
    [_, line, *_] = dataset.look(REGISTRY._replace(datasets={"own": own}), "own")
    assert line.state == FAULT and "is empty" in line.found


# --- the verb


def test_the_default_run_is_looked_at_with_its_models(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOM", 0.0)
    assert cli.main(["doctor"]) == 0, capsys.readouterr().out
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if "model mini-clip: is pretrained by the workflow: nothing to download" in line]
    assert all(line.split("  ")[0].strip() in (OK, WARNING, FAULT) for line in shown)


def test_a_run_is_looked_at_with_its_models_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "paper"]) == 1
    shown = capsys.readouterr().out.splitlines()
    gpus = [] if torch.cuda.is_available() else ["fault    GPUs: none is visible"]
    for said in (
        *gpus,
        "fault    model medgemma: google/medgemma-4b-it is gated and not cached, and no token is there",
        "warning  model clip: openai/clip-vit-base-patch32 is not cached",
        "fault    data set chexpert, files: its files need an application",
    ):
        assert any(line.startswith(said) for line in shown), said
    assert not [line for line in shown if not line.startswith((OK, WARNING, FAULT))]


def test_the_judges_of_a_run_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "run: judged\nmodels: [mini-llava]\ndatasets: [nano-vqa-radiology]\nmodes: [ots]\njudge: {models: [llava-1.5]}\n"
    (tmp_path / "judged.yaml").write_text(text)
    cli.main(["doctor", str(tmp_path / "judged.yaml")])
    assert "model llava-1.5: llava-hf/llava-1.5-7b-hf is not cached" in capsys.readouterr().out


def test_a_name_that_is_nothing_has_its_neighbour_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "lava-med"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("ERROR: lava-med: is no model, no data set and no run in config/; did you mean llava-med?")
        and said.count("\n") == 1
    )
