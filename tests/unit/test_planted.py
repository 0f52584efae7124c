"""Defects planted into the fine-tuning of every generative family: the certificate, or the family's own test, must catch each.

They are those of the published code (PROTOCOL.md, section 4) and the traps of MODELS.md, section 6.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medbench.adapt import generative_lora, peft_layout, tuned
from medbench.errors import MedbenchError
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.generative_base import IGNORED, Generative
from tests.unit import asked, tiny_generative
from tests.unit.test_families import queries

N = 16  # training samples


@pytest.fixture(params=tiny_generative.families("llava"))
def failures(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What the certificate of an adaptation of one family says."""
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 1, 1))
    folder = tiny_generative.checkpoint(request.param, tmp_path / "m")
    module = loading.module_name("generative", request.param)
    job = asked.job("d", folder, tmp_path / "w", {"epochs": 1, "dropout": 0.0})._replace(source=Source(module, str(folder), None, 16))
    assert len(job.train.questions) == N
    return lambda: "; ".join(generative_lora.adapt(job).certificate.failures)


of_two = pytest.mark.parametrize("failures", tiny_generative.families("llava", "qwen2-5-vl"), indirect=True)
"""Where a tower, positions or a processor come in, in which they differ."""


@of_two
def test_a_sound_adaptation_is_not_refused(failures: Callable[[], str]) -> None:
    assert failures() == ""


def test_a_question_that_is_never_seen(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Generative.prompt
    monkeypatch.setattr(Generative, "prompt", lambda self, text, n_images=1: plain(self, "Describe.", n_images))
    assert f"{N} of {N} inputs lack their question" in failures()


def labels(monkeypatch: pytest.MonkeyPatch, change: Callable[[Generative, dict[str, torch.Tensor]], torch.Tensor]) -> None:
    """Other labels than those of `train_batch`."""
    plain = Generative.train_batch

    def planted(self: Generative, *given: Any) -> dict[str, torch.Tensor]:
        batch = plain(self, *given)
        return {**batch, "labels": change(self, batch)}

    monkeypatch.setattr(Generative, "train_batch", planted)


def test_prompt_tokens_in_the_loss(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    labels(monkeypatch, lambda model, batch: batch["input_ids"].masked_fill(batch["input_ids"] == model.image_token_id, IGNORED))
    assert f"the labels of {N} of {N} samples are not exactly the answer" in failures()


def test_padding_in_the_loss(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    labels(monkeypatch, lambda model, batch: torch.where(batch["attention_mask"] == 0, batch["input_ids"], batch["labels"]))
    assert "the loss covers padding" in failures()


@of_two
def test_image_tokens_in_the_loss(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    labels(monkeypatch, lambda model, batch: torch.where(batch["input_ids"] == model.image_token_id, batch["input_ids"], batch["labels"]))
    assert "the loss covers image tokens" in failures()


def test_an_answer_without_its_end(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(model: Generative, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        found = batch["labels"].clone()
        for row in found:
            row[int((row != IGNORED).nonzero()[-1])] = IGNORED
        return found

    labels(monkeypatch, endless)
    assert "are not exactly the answer" in failures()


@pytest.mark.parametrize("failures", tiny_generative.families("llava", "qwen2-5-vl", "gemma3"), indirect=True)
def test_a_processor_key_that_never_reaches_the_model(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `mm_token_type_ids` Qwen2.5-VL trains with wrong positions and says nothing; Gemma without `token_type_ids` too."""
    plain = Generative.placed

    def forgetful(self: Generative, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        last = next((name for name in ("mm_token_type_ids", "token_type_ids") if name in inputs), "attention_mask")
        return plain(self, {name: value for name, value in inputs.items() if name != last})

    monkeypatch.setattr(Generative, "placed", forgetful)
    try:
        found = failures()
    except (ValueError, RuntimeError, TypeError, AttributeError):
        return  # Qwen2-VL says so itself
    assert "the model was not given" in found


@of_two
def test_a_projector_that_is_trained_and_not_saved(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = peft_layout.save_file

    def forgetful(tensors: dict[str, torch.Tensor], path: Path, about: dict[str, str]) -> None:
        plain({} if path.name == tuned.PROJECTOR else tensors, path, about)

    monkeypatch.setattr(peft_layout, "save_file", forgetful)
    found = failures()
    assert "the saved file holds no projector" in found and "the saved file lacks" in found


@of_two
def test_a_projector_that_is_only_switched_on(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`requires_grad_(True)` without being declared: it moves, and no file holds it."""
    plain = tuned.build

    def switched(model: Generative, *given: Any) -> None:
        names = model.projector
        monkeypatch.setattr(type(model), "projector", (), raising=True)
        plain(model, *given)
        for name, module in model.model.named_modules():
            if name.endswith(names):
                module.requires_grad_(True)

    groups = generative_lora.Learner.groups

    def all_groups(self: generative_lora.Learner) -> list[dict[str, Any]]:
        more = [value for name, value in self.model.model.named_parameters() if value.requires_grad and "lora_" not in name]
        return [*(group for group in groups(self) if group["params"]), {"params": more, "lr": 1e-2}]

    monkeypatch.setattr(tuned, "build", switched)
    monkeypatch.setattr(generative_lora.Learner, "groups", all_groups)
    found = failures()
    assert "the saved file holds no projector" in found and "frozen weights changed" in found


def test_adapters_that_never_learn(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tuned.build

    def frozen(*given: Any) -> None:
        plain(*given)
        for name, value in given[0].model.named_parameters():
            if "lora_" in name:
                value.requires_grad_(False)

    monkeypatch.setattr(tuned, "build", frozen)
    assert "trainable tensors never received a gradient" in failures()


@of_two
def test_adapters_in_the_vision_tower(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What names without their scope do."""
    monkeypatch.setattr(Generative, "lora_targets", r".*\.(q_proj|k_proj|v_proj|qkv|up_proj|down_proj|fc1)")
    assert "adapters are outside the decoder" in failures()


@of_two
def test_a_vision_tower_that_is_trained_along(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = generative_lora.Learner.prepare

    def moving(self: generative_lora.Learner, places: Any) -> Any:
        with torch.no_grad():
            next(value for name, value in self.model.model.named_parameters() if "vision" in name or "visual" in name).add_(0.01)
        return plain(self, places)

    monkeypatch.setattr(generative_lora.Learner, "prepare", moving)
    assert "frozen weights changed" in failures()


def test_a_reload_that_answers_otherwise(failures: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tuned.read

    def wrong(path: Path, model: Generative, source: Source) -> None:
        plain(path, model, source)
        with torch.no_grad():
            for value in tuned.trainable(model).values():
                value.mul_(3)

    monkeypatch.setattr(tuned, "read", wrong)
    assert "the saved adapter predicts otherwise" in failures()


@pytest.mark.parametrize("family", tiny_generative.ALL)
def test_a_completion_that_does_not_continue_its_prompt(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that ends with half of a word: its tokens are no prefix of prompt + answer, and labels would be cut at a wrong place."""
    model: Generative = loading.load(
        Source(loading.module_name("generative", family), str(tiny_generative.checkpoint(family, tmp_path / "m")))
    )
    plain = type(model).prompt
    monkeypatch.setattr(type(model), "prompt", lambda self, text, n_images=1: plain(self, text, n_images) + " no")
    monkeypatch.setattr(type(model), "completion", lambda self, answer: f"rmal{self.tokenizer.eos_token}")
    with pytest.raises(MedbenchError, match="sample 0: its prompt is no token prefix"):
        model.train_batch(queries(2), ["yes", "no"])


@pytest.mark.parametrize("family", tiny_generative.ALL)
def test_right_padding_in_generation(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of a batch with single questions is what catches it."""
    model: Generative = loading.load(
        Source(loading.module_name("generative", family), str(tiny_generative.checkpoint(family, tmp_path / "m")))
    )
    asking = queries()
    alone = [model.generate(model.inputs([query], 10), 10)[0] for query in asking]
    plain = type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda self, some, ends=None, side="left": plain(self, some, ends, "right"))
    assert model.generate(model.inputs(asking, 10), 10) != alone
