"""LoRA of generative models: a whole adaptation, what a kill leaves, and what a user can fix. Planted defects: test_planted.py."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medbench.adapt import asked as module
from medbench.adapt import certificate, generative_lora, peft_layout, training, tuned
from medbench.adapt.certificate import TextEvidence
from medbench.adapt.job import Adapted
from medbench.errors import MedbenchError
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.generative.llava import Llava
from medbench.models.generative_base import Generative
from tests.unit import asked


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Adapted]:
    """A working directory with a data set and a checkpoint, and the adaptation in its `whole`."""
    place = tmp_path_factory.mktemp("place")
    asked.checkpoint(place / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        asked.dataset("d")
        return place, adapt(place, "whole")


@pytest.fixture
def place(made: tuple[Path, Adapted], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Without what an earlier test adapted there."""
    monkeypatch.chdir(made[0])
    yield made[0]
    for folder in made[0].iterdir():
        if folder.name not in ("whole", "tiny", "results"):
            shutil.rmtree(folder)


@pytest.fixture
def whole(made: tuple[Path, Adapted], place: Path) -> Adapted:
    """Never changed."""
    return made[1]


def adapt(place: Path, scratch: str = "scratch", **recipe: Any) -> Adapted:
    return generative_lora.adapt(asked.job("d", place / "tiny", place / scratch, recipe))


def test_images_are_decoded_once_as_far_as_memory_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 20 x 20 pixels is kept beside one of 40 x 40, which leaves no room for the third."""
    sizes = {"a": (40, 40), "b": (20, 20), "c": (20, 20)}
    rows = [SimpleNamespace(image_id=name, image=name.encode()) for name in sizes]
    read = list[str]()

    def decode(data: bytes) -> Image.Image:
        read.append(data.decode())
        return Image.new("RGB", sizes[data.decode()])

    monkeypatch.setattr(module, "IN_MEMORY", 4 * (40 * 40 + 20 * 20))
    images = module.Images(tmp_path / "images.bin", [rows[:2], rows[2:]], decode)  # type: ignore[list-item]
    shown = [images[name].size for _ in range(3) for name in "abc"]
    assert shown == [*sizes.values()] * 3
    assert read == ["a", "b", "c", "c", "c"]


def test_an_adaptation_is_certified_and_read_back(place: Path, whole: Adapted) -> None:
    found = whole.certificate
    assert found.failures == []
    evidence, text = found.evidence, found.evidence.text
    assert evidence.adapters == 2 * 7 * 2 and len(evidence.tensors) == 2 * 7 * 2 + 4
    assert isinstance(text, TextEvidence)
    assert (text.n_watched, text.projector_saved, text.n_answered, text.answers_changed) == (48, 4, 16, 0)
    (place / "written").mkdir()
    certificate.write(found, place / "written/certificate.json", {}, {})
    written = json.loads((place / "written/certificate.json").read_text())
    assert written["text"]["n_watched"] == 48 and written["failures"] == []
    fresh: Generative = loading.load(Source(asked.MODULE, str(place / "tiny")))
    tuned.read(whole.weights, fresh, asked.job("d", place / "tiny", place / "scratch").source)
    found = {**peft_layout.adapters(fresh.model), **tuned.projector(fresh)}
    saved = {name: value for file in whole.weights.glob("*.safetensors") for name, value in load_file(file).items()}
    assert len(found) == len(evidence.tensors) and found.keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in found.items())


@pytest.mark.parametrize("step", [pytest.param(0, marks=pytest.mark.full), 3])
def test_equal_jobs_give_equal_bytes_and_a_killed_one_resumes_to_them(
    place: Path, whole: Adapted, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    backward, steps = training.Training._backward, []

    def killed(self: training.Training, batch: Any, epoch: int) -> Any:
        steps.append((epoch, self.step))
        if steps[-1] == (1, step) and steps.count((1, step)) == 1:
            raise KeyboardInterrupt
        return backward(self, batch, epoch)

    monkeypatch.setattr(training.Training, "_backward", killed)
    monkeypatch.setattr(training.Training, "_is_due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        adapt(place, "killed")
    resumed = adapt(place, "killed")
    assert len(steps) == len(set(steps)) + 1
    files = [{file.name: file.read_bytes() for file in adapted.weights.iterdir()} for adapted in (resumed, whole)]
    assert files[0] == files[1] and resumed.certificate == whole.certificate


def test_a_finished_training_that_was_killed_before_its_end_is_still_certified(place: Path, whole: Adapted) -> None:
    shutil.copytree(place / "whole", place / "killed")
    shutil.rmtree(place / "killed" / "weights")
    assert adapt(place, "killed").certificate == whole.certificate


def test_test_samples_in_training_are_caught(place: Path) -> None:
    job = asked.job("d", place / "tiny", place / "scratch")
    stolen = job._replace(test_ids=frozenset(job.train.sample_ids[:3]))
    assert "3 test samples were used" in "; ".join(generative_lora.adapt(stolen).certificate.failures)


# --- what a user can fix


def test_a_loss_that_is_not_finite_names_the_cell(place: Path) -> None:
    with pytest.raises(MedbenchError, match=r"cell d/tiny/lora: the training loss is not finite in epoch 1; lower the learning rates"):
        adapt(place, learning_rate=1e30, projector_learning_rate=1e30)


def test_an_adapter_of_another_model_is_named(place: Path, whole: Adapted) -> None:
    weights = Path(shutil.copytree(whole.weights, place / "weights"))
    source = asked.job("d", place / "tiny", place / "scratch").source
    fresh: Generative = loading.load(Source(asked.MODULE, str(place / "tiny")))
    with pytest.raises(MedbenchError, match=r"is an adapter for another base .*; this is .*bits 8"):
        tuned.read(weights, fresh, source._replace(bits=8))
    loaded, fresh.weights = fresh.weights, {"checkpoint": "commit abc"}
    with pytest.raises(MedbenchError, match=r"was trained on checkpoint sha256 \w{64}, and this is commit abc"):
        tuned.read(weights, fresh, source)
    fresh.weights = loaded
    with safe_open(weights / tuned.PROJECTOR, "pt") as file:
        about = file.metadata()
    tensors = load_file(weights / tuned.PROJECTOR)
    save_file({**tensors, next(iter(tensors)): torch.zeros(3, 3)}, weights / tuned.PROJECTOR, about)
    with pytest.raises(MedbenchError, match="is the adapter of another model"):
        tuned.read(weights, fresh, source)
    (weights / tuned.PROJECTOR).write_bytes(b"not safetensors")
    with pytest.raises(MedbenchError, match="is no readable adapter"):
        tuned.read(weights, loading.load(Source(asked.MODULE, str(place / "tiny"))), source)


def test_targets_that_match_nothing_are_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Llava, "lora_targets", r"nothing\..*")
    with pytest.raises(MedbenchError, match=r"architecture Llava: no layer of the decoder fits lora_targets"):
        adapt(place)


def test_gradient_checkpointing_changes_nothing(place: Path, whole: Adapted) -> None:
    saving = adapt(place, "saving", gradient_checkpointing=True).weights
    for file in whole.weights.glob("*.safetensors"):
        for name, value in load_file(file).items():
            assert torch.allclose(value, load_file(saving / file.name)[name], atol=1e-5)
