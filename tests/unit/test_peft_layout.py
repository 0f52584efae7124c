"""LoRA cells in PEFT's layout: peft alone loads their folder into the checkpoint's own model, and what does not belong is refused."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from medbench import paths
from medbench.adapt import classifier as classifiers
from medbench.adapt import linear, peft_layout, tuned
from medbench.adapt.peft_layout import ADAPTERS, CONFIG, Description
from medbench.errors import MedbenchError
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.generative_base import Generative, Query
from medbench.models.loading import Contrastive
from medbench.stages import adapt
from tests.unit import tiny, tiny_generative
from tests.unit.test_adapt import lora_params, probe_params, vectors

COMMIT = "0123456789" * 4
IMAGE = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))


def described(model: Generative | Contrastive, module: str, **more: Any) -> Description:
    return Description(module, "someone/something", "main", model.weights, {"r": 4}, 1, **more)


def drawn(tensors: dict[str, torch.Tensor]) -> None:
    """Values as after a training: none is zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in tensors.values():
            value.add_(torch.randn(value.shape, generator=generator) * 0.05)


# --- peft alone


def generative(family: str, folder: Path) -> tuple[Generative, torch.Tensor]:
    """A model with trained adapters and projector, saved in `cell`, and its logits."""
    model = tiny_generative.load(family, folder / "m")
    tuned.build(model, 4, 8, 0.1)
    drawn(tuned.trainable(model))
    tuned.save(model, folder / "cell", described(model, loading.module_name("generative", family)))
    return model, logits(model, model.model)


def logits(model: Generative, module: Any) -> torch.Tensor:
    """Of one question about one image, by a module that stands for the model's own."""
    with torch.inference_mode():
        found: torch.Tensor = module(**model.placed(model.inputs([Query("q", IMAGE, "Is it red?")], 4))).logits
    return found


@pytest.mark.parametrize("family", tiny_generative.ALL)
def test_peft_alone_loads_a_generative_cell(family: str, tmp_path: Path) -> None:
    tiny_generative.checkpoint(family, tmp_path / "m")
    _, expected = generative(family, tmp_path)
    fresh = tiny_generative.load(family, tmp_path / "m")
    plain, base = logits(fresh, fresh.model), fresh.model
    found = base.load_state_dict(load_file(tmp_path / "cell" / tuned.PROJECTOR), strict=False)
    assert not found.unexpected_keys, "the projector has the names of the checkpoint's own module"
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path / "cell"))
    torch.testing.assert_close(logits(fresh, loaded), expected, rtol=0, atol=0)
    assert not torch.allclose(plain, expected, atol=1e-4)


@pytest.mark.parametrize("family", ["llava", "qwen2-vl", "internvl", "gemma3"])
def test_transformers_and_peft_need_none_of_our_code(family: str, tmp_path: Path) -> None:
    """The checkpoint as `transformers` loads it, by a configuration that names it: what `AutoPeftModel` does too."""
    from transformers import AutoModelForImageTextToText

    tiny_generative.checkpoint(family, tmp_path / "m")
    model, expected = generative(family, tmp_path)
    base = AutoModelForImageTextToText.from_pretrained(tmp_path / "m", dtype=torch.float32, attn_implementation="sdpa").eval()
    base.load_state_dict(load_file(tmp_path / "cell" / tuned.PROJECTOR), strict=False)
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path / "cell"))
    torch.testing.assert_close(logits(model, loaded), expected, rtol=0, atol=0)
    assert loaded.peft_config["default"].auto_mapping["base_model_class"] == type(base).__name__


def contrastive(architecture: str, folder: Path, text: bool = False) -> classifiers.Classifier:
    """A trained classifier, saved in `cell`."""
    model = tiny.load(architecture, folder / "m")
    some = model.encode_images(model.to_device(model.pixels(IMAGE)[None]))
    width = some.embeddings.shape[2] if text else some.features.shape[1]
    classifier = classifiers.build(model, width, 2, 4, 8, 0.1, text)
    drawn(classifier.saved())
    module = loading.module_name("contrastive", architecture)
    classifiers.save(classifier, folder / "cell", described(model, module, classes=tiny.CLASSES))
    return classifier


def features(model: Contrastive) -> torch.Tensor:
    with torch.inference_mode():
        return model.encode_images(model.to_device(model.pixels(IMAGE)[None])).features


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_peft_alone_loads_a_contrastive_cell(architecture: str, tmp_path: Path) -> None:
    """Adapters go into the vision tower of the whole model, and into no layer of the text tower that has the same name."""
    tiny.checkpoint(architecture, tmp_path / "m")
    classifier = contrastive(architecture, tmp_path)
    classifier.eval()
    fresh = tiny.load(architecture, tmp_path / "m")
    plain = features(fresh)
    loaded = peft.PeftModel.from_pretrained(fresh.model, str(tmp_path / "cell"))
    adapted, head = features(fresh), load_file(tmp_path / "cell" / classifiers.HEAD)
    torch.testing.assert_close(adapted, features(classifier.contrastive), rtol=0, atol=0)
    assert not torch.allclose(adapted, plain, atol=1e-4)
    scores = ((adapted - head["head.mean"]) / head["head.deviation"]) @ head["head.weight"].T + head["head.bias"]
    with torch.inference_mode():
        torch.testing.assert_close(scores, classifier(fresh.to_device(fresh.pixels(IMAGE)[None])))
    assert len(peft_layout.adapters(loaded)) == len(classifier.adapters())


@pytest.mark.parametrize("family", ["llava", "clip"])
def test_the_files_are_those_that_peft_writes(family: str, tmp_path: Path) -> None:
    """Names, values and every field of the configuration, but for the checkpoint: peft knows its folder, the cell its name."""
    if family == "llava":
        tiny_generative.checkpoint(family, tmp_path / "m")
        module = generative(family, tmp_path)[0].model
    else:
        tiny.checkpoint(family, tmp_path / "m")
        contrastive(family, tmp_path)
        module = peft.PeftModel.from_pretrained(tiny.load(family, tmp_path / "m").model, str(tmp_path / "cell"))
    module.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    assert (tmp_path / "cell" / ADAPTERS).read_bytes() == (tmp_path / "theirs" / ADAPTERS).read_bytes()
    ours, theirs = (json.loads((tmp_path / name / CONFIG).read_text()) for name in ("cell", "theirs"))
    where = ("base_model_name_or_path", "revision")
    assert {**ours, **dict.fromkeys(where)} == {**theirs, **dict.fromkeys(where)}
    assert ours["base_model_name_or_path"] == "someone/something" and ours["modules_to_save"] is None
    assert isinstance(ours["target_modules"], str)


@pytest.mark.parametrize(("loaded", "expected"), [(f"commit {COMMIT}", COMMIT), ("sha256 ab", "main")])
def test_the_configuration_names_the_commit_that_was_loaded(loaded: str, expected: str, tmp_path: Path) -> None:
    model = tiny.load("clip", tiny.checkpoint("clip", tmp_path / "m"))
    classifier = classifiers.build(model, 3, 2, 4, 8, 0.0)
    classifiers.save(classifier, tmp_path / "cell", described(model, "m")._replace(weights={"checkpoint": loaded}))
    assert json.loads((tmp_path / "cell" / CONFIG).read_text())["revision"] == expected


# --- what is refused


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A checkpoint `m` with a saved cell."""
    tiny.checkpoint("clip", tmp_path / "m")
    contrastive("clip", tmp_path)
    return tmp_path


def refused(folder: Path, match: str) -> None:
    with pytest.raises(MedbenchError, match=match):
        classifiers.read(folder / "cell", tiny.load("clip", folder / "m"))


def test_our_own_reading_gives_the_same_classifier(clip: Path) -> None:
    first, again = contrastive("clip", clip), classifiers.read(clip / "cell", tiny.load("clip", clip / "m"))
    assert first.saved().keys() == again.saved().keys()
    assert all(torch.equal(value, again.saved()[name]) for name, value in first.saved().items())


def test_prompts_in_place_of_a_head_come_back(clip: Path) -> None:
    first = contrastive("clip", clip, text=True)
    again = classifiers.read(clip / "cell", tiny.load("clip", clip / "m"))
    assert isinstance(again, classifiers.TextClassifier) and torch.equal(first.saved()["texts"], again.texts)


@pytest.mark.parametrize("name", [ADAPTERS, CONFIG, classifiers.HEAD])
def test_an_absent_file_is_named(clip: Path, name: str) -> None:
    (clip / "cell" / name).unlink()
    refused(clip, rf"cell/{name}: the file does not exist; run `snakemake --cores all .*cell`")


def test_adapters_and_configuration_of_another_cell_are_refused(clip: Path) -> None:
    for name, other in ((ADAPTERS, b"x"), (CONFIG, b"{}")):
        kept = (clip / "cell" / name).read_bytes()
        (clip / "cell" / name).write_bytes(other)
        refused(clip, rf"cell/{name}: is not the file that head.safetensors was saved with; delete it and run `adapt` again")
        (clip / "cell" / name).write_bytes(kept)


def test_a_file_without_description_is_refused(clip: Path) -> None:
    save_file(load_file(clip / "cell" / classifiers.HEAD), clip / "cell" / classifiers.HEAD)
    refused(clip, "is no readable adapter")


@pytest.mark.parametrize("where", ["adapters", "rest"])
def test_a_tensor_that_is_missing_or_too_many_is_named(clip: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = peft_layout.read

    def changed(folder: Path, file: str, more: bool) -> peft_layout.Saved:
        saved = read(folder, file)
        tensors: dict[str, torch.Tensor] = getattr(saved, where)
        if more:
            tensors["more"] = torch.zeros(1)
        else:
            tensors.pop(next(name for name in tensors if name != "head.weight"))
        return saved

    for more in (True, False):
        monkeypatch.setattr(peft_layout, "read", lambda folder, file, more=more: changed(folder, file, more))
        refused(clip, "is the adapter of another model")


def test_other_weights_of_the_same_shape_are_refused(clip: Path) -> None:
    tensors = tiny.tensors(clip / "m")
    tiny.replace(clip / "m", {name: value + 1 if name.endswith("weight") else value for name, value in tensors.items()})
    refused(clip, r"was trained on checkpoint sha256 \w{64}, and this is sha256 \w{64}")


def test_another_number_format_of_the_base_is_refused(tmp_path: Path) -> None:
    tiny_generative.checkpoint("llava", tmp_path / "m")
    generative("llava", tmp_path)
    source = Source(loading.module_name("generative", "llava"), str(tmp_path / "m"))
    with pytest.raises(MedbenchError, match=r"is an adapter for another base .*bits 4"):
        tuned.read(tmp_path / "cell", tiny_generative.load("llava", tmp_path / "m"), source._replace(bits=4))


# --- the stage


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.dataset()
    return tmp_path


def test_every_mode_writes_the_same_two_outputs(data: Path) -> None:
    vectors("m")
    adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")
    adapt.STAGE.execute(lora_params(tiny.checkpoint("clip", data / "model"), epochs=1), "tiny", "m", "lora")
    found = {mode: sorted(file.name for file in paths.adapter_weights("tiny", "m", mode).iterdir()) for mode in ("lp", "lora")}
    assert found == {"lp": [linear.FILE], "lora": sorted([ADAPTERS, CONFIG, classifiers.HEAD])}
    for mode in found:
        certificate, weights = adapt.STAGE.outputs("tiny", "m", mode)
        assert certificate.name == "certificate.json" and certificate.is_file() and weights.is_dir()
        assert {certificate, weights} == set(certificate.parent.iterdir()), "nothing else"


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_kill_while_a_result_is_replaced_leaves_no_half(data: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """At each of its renames: while the new is brought beside the old one, the old one stays whole; then there is no certificate."""
    vectors("m")
    adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")
    certificate, weights = paths.adapter_files("tiny", "m", "lp")
    before = certificate.read_bytes(), (weights / linear.FILE).read_bytes()
    rename, made = Path.rename, itertools.count(1)

    def killed(self: Path, target: Path) -> Path:
        if next(made) == number:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")
    assert certificate.exists() == (number <= 2)
    if certificate.exists():
        assert (certificate.read_bytes(), (weights / linear.FILE).read_bytes()) == before
    adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")
    assert (certificate.read_bytes(), (weights / linear.FILE).read_bytes()) == before
