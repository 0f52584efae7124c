"""The study's eight contrastive models by their registry entries, on tiny checkpoints, as Snakemake plans them: modes, certificates."""

import json
from pathlib import Path

import pytest
import yaml

from medbench import tables
from tests.conftest import Clone
from tests.unit import tiny

MODELS = ("clip", "blip-2", "medclip", "pubmedclip", "plip", "biomedclip", "siglip", "medsiglip")
ARCHITECTURES = ("clip", "blip-2", "medclip", "biomedclip", "siglip")  # the others are of one of these
MODES = ("ots", "lp", "lp-published", "lora")
MORE = ("lp-16", "lora-text", "lp-leak-free", "lora-leak-free")  # of one model


def prepared(clone: Clone, models: tuple[str, ...]) -> None:
    """The registry as it is shipped, but for where the weights lie, a short training, and a run over the models."""
    path = clone.folder / "config/models.yaml"
    entries = yaml.safe_load(path.read_text())
    for name in models:
        architecture = entries[name]["architecture"]
        folder = clone.folder / "checkpoints" / architecture
        if not folder.exists():
            tiny.checkpoint(architecture, folder)
        entries[name]["checkpoint"] = f"./checkpoints/{architecture}"
        for pin in ("revision", "checksums", "companions"):  # of the published weights
            entries[name].pop(pin, None)
        quick = {"epochs": 8, "learning_rate": 1.0e-3, "head_learning_rate": 3.0e-3, "dropout": 0.0}
        entries[name]["overrides"] = dict.fromkeys(("lora", "lora-text", "lora-leak-free"), quick)
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    sets = clone.folder / "config/datasets.yaml"
    datasets = yaml.safe_load(sets.read_text())
    words = {"main": ("a dark square", "a bright square"), "second": ("dim", "lit"), "third": ("a dark white square", "bright and lit")}
    prompts = {name: {"clear": [one], "nodules": [other]} for name, (one, other) in words.items()}
    datasets["nano-radiology"]["prompts"] = prompts  # of words that a tiny tokenizer knows
    sets.write_text(yaml.safe_dump(datasets, sort_keys=False))
    run = {"run": "eight", "seed": 0, "models": list(models), "datasets": ["nano-radiology"], "modes": list(MODES)}
    (clone.folder / "config/eight.yaml").write_text(yaml.safe_dump(run))


@pytest.mark.parametrize("models", [ARCHITECTURES, pytest.param(MODELS, marks=pytest.mark.full)], ids=["one an architecture", "all"])
def test_they_go_through_every_mode_with_their_certificates(clone: Clone, models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    prepared(clone, models)
    more = [f"results/intervals/nano-radiology/blip-2/{mode}.parquet" for mode in MORE]
    clone.compute("all", *more, configfile="config/eight.yaml")
    cells = [(model, mode) for model in models for mode in MODES] + [("blip-2", mode) for mode in MORE]
    for model, mode in cells:
        place = Path("nano-radiology") / model / mode
        frame = tables.read(tables.Intervals, clone.folder / f"results/intervals/{place}.parquet")
        [auroc] = frame.filter(metric="auroc", scoring="standard", subset="all", method="percentile")["estimate"]
        assert 0 <= auroc <= 1
        if mode != "ots":
            said = json.loads((clone.folder / f"results/adapters/{place}/certificate.json").read_text())
            assert said["failures"] == [] and said["n_trainable"] == said["n_with_gradient"] > 0, place
    for model in models:
        scorings = tables.read(tables.Intervals, clone.folder / f"results/intervals/nano-radiology/{model}/ots.parquet")["scoring"]
        assert scorings.unique().str.starts_with("prompts-").sum() == 3
    report = (clone.folder / "results/report/eight/index.html").read_text()
    assert "How far the wording moves zero-shot AUROC" in report
    cost = (clone.folder / "results/report/eight/cost.csv").read_text().splitlines()
    assert len(cost) == 1 + len(models) * (1 + 3 + 4) + 3, "header; embed, three adaptations, four predictions each; the raw pixels"
    assert not clone.plan("all", *more, configfile="config/eight.yaml"), "every output of every rule is there"
