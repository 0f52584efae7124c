"""The certificate catches every way in which an adaptation can be none. Each defect is planted into the real code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from medbench import paths, tables
from medbench.adapt import certificate, contrastive_lora, peft_layout, training
from medbench.adapt.certificate import Evidence, Tensor, certify
from medbench.adapt.classifier import Classifier
from medbench.errors import MedbenchError
from medbench.models.contrastive.clip import Clip
from medbench.models.contrastive.siglip import Siglip
from medbench.stages import adapt
from medbench.tasks.diagnosis import SamplesDiagnosis
from tests.unit import tiny

Patch = pytest.MonkeyPatch


@pytest.fixture
def data(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.dataset()
    return tmp_path


def run(architecture: str = "clip", **recipe: Any) -> None:
    if not Path("model").exists():
        tiny.checkpoint(architecture, Path("model"))
    source = tiny.source(architecture, Path("model"))._asdict()
    adapt.STAGE.execute(
        adapt.Params("medbench.adapt.contrastive_lora", "diagnosis", source, tiny.RECIPE | {"epochs": 1} | recipe, tiny.CLASSES, 0),
        "tiny",
        "m",
        "lora",
    )


def refused(match: str, architecture: str = "clip", **recipe: Any) -> None:
    """The cell is an error that names it and the clause, and leaves nothing behind."""
    with pytest.raises(MedbenchError, match=match):
        run(architecture, **recipe)
    assert not paths.adapter("tiny", "m", "lora").exists()
    assert not list(Path("results/.partial").iterdir())


def test_adapters_under_no_grad(data: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Clip, "encode_images", torch.no_grad()(Clip.encode_images))
    refused(r"cell tiny/m/lora: \d+ of \d+ trainable tensors never received a gradient \(tower\.encoder")


def test_target_names_that_match_nothing(data: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Clip, "lora_targets", r"encoder\.blocks\..*")
    refused("no layer of the vision tower fits lora_targets")


def test_target_names_that_match_nothing_and_are_let_through(data: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("peft.inject_adapter_in_model", lambda config, model: setattr(model, "peft_config", {"default": config}))
    refused("no adapter was put into the tower")


def test_a_dead_module_among_the_targets(data: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Siglip, "lora_targets", Siglip.lora_targets + r"|head\.attention\.out_proj")
    refused(r"2 of \d+ trainable tensors never received a gradient \(tower\.head\.attention\.out_proj", "siglip")


def spoil_file(monkeypatch: Patch, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Have `save` write other tensors than it should."""
    save = peft_layout.save_file

    def spoiled(tensors: dict[str, torch.Tensor], path: Path, about: dict[str, str]) -> None:
        written = {name: value.clone() for name, value in tensors.items()}
        change(written)
        save(written, path, about)

    monkeypatch.setattr(peft_layout, "save_file", spoiled)


def test_a_head_that_is_not_saved(data: Path, monkeypatch: Patch) -> None:
    spoil_file(monkeypatch, lambda tensors: tensors.pop("head.weight", None))
    refused("the saved file lacks head.weight")


def test_another_head_that_is_saved(data: Path, monkeypatch: Patch) -> None:
    spoil_file(monkeypatch, lambda tensors: [value.mul_(1.01) for name, value in tensors.items() if name == "head.weight"])
    refused("the saved adapter predicts otherwise than the trained one")


def test_adapters_saved_as_they_started(data: Path, monkeypatch: Patch) -> None:
    spoil_file(monkeypatch, lambda tensors: [value.zero_() for name, value in tensors.items() if "lora_B" in name])
    refused("the saved adapter predicts otherwise than the trained one")


def test_evaluation_mode_forgotten(data: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Classifier, "eval", lambda self: self)
    refused("not in evaluation mode", dropout=0.5)


def test_test_samples_in_selection(data: Path) -> None:
    test = tables.read(SamplesDiagnosis, paths.samples("tiny", "test"))
    validation = tables.read(SamplesDiagnosis, paths.samples("tiny", "val"))
    tables.write(SamplesDiagnosis, pl.concat([validation, test[3:5]]), paths.samples("tiny", "val"))
    refused(r"2 test samples were used in training or selection \(test-3\)")


def test_test_samples_in_the_search_of_a_probe(data: Path) -> None:
    test = tables.read(SamplesDiagnosis, paths.samples("tiny", "test"))
    images = tables.read(tables.Images, paths.images("tiny"))["image_id"]
    features = torch.randn(len(images), 80, generator=torch.Generator().manual_seed(0)).tolist()
    frame = pl.DataFrame(
        {"image_id": images, "features": features, "embeddings": [None] * len(images)}, schema=tables.columns(tables.Embeddings)
    )
    tables.write(tables.Embeddings, frame, paths.embeddings("tiny", "m"))
    train = tables.read(SamplesDiagnosis, paths.samples("tiny", "train"))
    tables.write(SamplesDiagnosis, pl.concat([train, test[:1]]), paths.samples("tiny", "train"))
    recipe = {"kind": "probe", "c_values": [1.0], "n_splits": 2, "max_iter": 1000}
    with pytest.raises(MedbenchError, match=r"1 test samples were used in training or selection \(test-0\)"):
        adapt.STAGE.execute(adapt.Params("medbench.adapt.probe", "diagnosis", None, recipe, tiny.CLASSES, 0), "tiny", "m", "lp")
    assert not paths.adapter("tiny", "m", "lp").exists()


def test_frozen_weights_that_change(data: Path, monkeypatch: Patch) -> None:
    train = training.train

    def careless(learner: contrastive_lora.Learner, *args: Any) -> Any:
        trained = train(learner, *args)
        with torch.no_grad():
            learner.classifier.contrastive.model.text_model.embeddings.token_embedding.weight[0, 0] += 1e-6
        return trained

    monkeypatch.setattr(contrastive_lora, "train", careless)
    refused("frozen weights changed")


def test_a_training_that_moves_nothing(data: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    refused("trainable tensors did not move.*the training loss did not fall")


GOOD = Evidence(
    cell="d/m/lora", method="contrastive_lora", n_train=4, n_val=2, tensors=[Tensor("head.weight", 6, True, 0.1, "absolute")], adapters=2,
    loss_start=0.7, loss_end=0.5, converged=None, frozen_before="a", frozen_after="a", missing_from_file=[], repeat_difference=0.0,
    reload_difference=0.0, reload_tolerance=0.0, test_samples_used=[], selection={},
)  # fmt: skip


def test_good_evidence_has_no_failures_and_is_written_as_measured(tmp_path: Path) -> None:
    good = certify(GOOD)
    certificate.require(good)
    certificate.write(good, tmp_path / "certificate.json", {"checkpoint": "commit 0"}, {"probe.safetensors": "0" * 64})
    said = json.loads((tmp_path / "certificate.json").read_text())
    assert said["failures"] == [] and said["n_trainable"] == 1 == said["n_with_gradient"] and said["parameters_trained"] == 6
    assert {name: said[name] for name in GOOD._fields if name != "tensors"} == {k: v for k, v in GOOD._asdict().items() if k != "tensors"}


NAN = float("nan")


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": []},
        {"adapters": 0},
        {"tensors": [Tensor("w", 1, False, 0.1, "absolute")]},
        {"tensors": [Tensor("w", 1, True, 0.0, "relative")]},
        {"tensors": [Tensor("w", 1, True, NAN, "relative")]},
        {"loss_end": 0.7},
        {"loss_end": NAN},
        {"converged": False},
        {"frozen_after": "b"},
        {"missing_from_file": ["head.bias"]},
        {"repeat_difference": 1e-9},
        {"repeat_difference": NAN},
        {"reload_difference": 1e-9},
        {"reload_difference": NAN},
        {"reload_difference": 0.01, "reload_tolerance": 0.001},
        {"test_samples_used": ["s"]},
    ],
)
def test_each_clause_fails_alone(change: dict[str, Any]) -> None:
    judged = certify(GOOD._replace(**change))
    assert judged.failures
    with pytest.raises(MedbenchError, match="cell d/m/lora"):
        certificate.require(judged)


def test_what_does_not_apply_does_not_fail() -> None:
    assert certify(GOOD._replace(adapters=None, converged=True, frozen_before=None, frozen_after=None)).failures == []
    assert certify(GOOD._replace(reload_difference=5e-4, reload_tolerance=1e-3)).failures == []
