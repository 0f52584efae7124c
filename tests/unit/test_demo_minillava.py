"""Mini LLaVA models: the hub's format, equal weights for equal arguments, and a pretraining that learns."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from medbench.demo import llavaformat, minillava, questions, scenes
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.generative_base import Generative


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def made(folder: Path, corpus: list[str], seed: int = 0) -> minillava.PretrainReport:
    return minillava.pretrain("llava", corpus, folder, seed, steps=6, batch_size=4, pool_size=24)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava") / "one"
    made(folder, ["natural", "radiology"])
    return folder


def test_equal_arguments_give_equal_weights_whatever_the_caller_does(mini: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    made(tmp_path / "two", ["natural", "radiology"])
    assert digest(mini) == digest(tmp_path / "two")
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    made(tmp_path / "three", ["natural", "radiology"], seed=1)
    made(tmp_path / "four", ["natural"])
    assert len({digest(folder) for folder in (mini, tmp_path / "three", tmp_path / "four")}) == 3


def test_it_reloads_as_a_hub_checkpoint(mini: Path) -> None:
    model, processor = AutoModelForImageTextToText.from_pretrained(mini), AutoProcessor.from_pretrained(mini)  # type: ignore[no-untyped-call]
    assert isinstance(model, LlavaForConditionalGeneration) and isinstance(processor, LlavaProcessor)
    assert (processor.patch_size, processor.vision_feature_select_strategy, processor.num_additional_image_tokens) == (8, "default", 1)
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert model.config.image_token_id == processor.image_token_id


def test_pretraining_and_evaluation_read_the_same_tokens(mini: Path) -> None:
    """A first question in pretraining is, token by token, the prompt that the chat template makes."""
    model: Generative = loading.load(Source("medbench.models.generative.llava", str(mini)))
    pool = [minillava.shown("radiology", 0, index) for index in range(8)]
    lessons = minillava._Lessons(model.model, model.tokenizer, pool, 0, 4, 1e-3)
    image = [model.image_token_id] * llavaformat.IMAGE_TOKENS
    ids, labels = lessons._dialogue(image, "radiology", pool[0].facts, 1)
    text = model.tokenizer.decode(ids).replace("<image>" * llavaformat.IMAGE_TOKENS, "<image>").removeprefix("<s>")
    question = text.removeprefix("USER: <image>\n").partition(" ASSISTANT:")[0]
    assert (
        model.prompt(question) + model.completion(model.tokenizer.decode([i for i in labels if i >= 0], skip_special_tokens=True).strip())
        == text
    )
    encoded = model.processor(text=[text], images=[[np.zeros((64, 64, 3), np.uint8)]], return_tensors="pt")
    assert encoded["input_ids"][0].tolist() == ids


def test_every_option_is_one_word_to_the_tokenizer_and_any_text_comes_back() -> None:
    tokenizer = llavaformat.train_tokenizer(minillava.texts())
    for topic in (topic for table in minillava.TOPICS.values() for topic in table.values()):
        for option in topic.options:
            assert len(tokenizer(f" {option}", add_special_tokens=False)["input_ids"]) == 1
    for text in ("Is there a pneumothorax?", "  T2-weighted; 3.5 cm", "\u00dcber \u00b5m"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_a_little_pretraining_lowers_the_loss(tmp_path: Path) -> None:
    report = minillava.pretrain("llava", ["radiology"], tmp_path / "mini", 0, steps=50, batch_size=8, pool_size=200)
    assert report.steps == 50 and report.loss_last < 0.8 * report.loss_first


def test_facts_of_a_scene_are_options_of_its_topics() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        image, facts = scenes.scene(rng)
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
        assert all(option in scenes.TOPICS[name].options for name, option in facts.items())
        assert ("half" in facts) == (facts["number"] == "one")


def test_pretraining_sees_no_picture_of_a_cohort() -> None:
    cohort = {sample.image.tobytes() for sample in questions.cohort("radiology", 20, 0)}
    assert not cohort & {minillava.shown("radiology", 0, index).image.tobytes() for index in range(20)}


@pytest.mark.parametrize(
    ("architecture", "corpus", "message"),
    [
        ("clip", ["natural"], "only llava"),
        ("llava", [], "choose from"),
        ("llava", ["pathology"], r"\['pathology'\]: choose from natural, radiology, dermatology"),
    ],
)
def test_what_cannot_be_made_is_named(tmp_path: Path, architecture: str, corpus: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minillava.pretrain(architecture, corpus, tmp_path, 0)
