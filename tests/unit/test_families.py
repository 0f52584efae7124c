"""Qwen2-VL, Qwen2.5-VL, InternVL, Gemma 3: batches, training, certificates, kills and parameter counts of every family."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medbench import config
from medbench.adapt import certificate, generative_lora, tuned
from medbench.adapt.base import Source
from medbench.errors import MedbenchError
from medbench.models import base, counting
from medbench.models.generative_base import IGNORED, Generative, Query
from tests.unit import asked, tiny_generative
from tests.unit.tiny_generative import FAMILIES

ROOT = Path(__file__).parents[2]
QWEN = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
# The published `config.json`s, as far as they differ from the classes' defaults: architecture, fields, parameters, projector.
PUBLISHED: dict[str, tuple[str, dict[str, Any], int, float]] = {
    "llava-1.5": (
        "llava",
        {
            "vision_config": {
                "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000,
            },
            "text_config": {"model_type": "llama", "vocab_size": 32064},
        },
        7_063_427_072,
        20.98,
    ),
    "qwen2-vl": (
        "qwen2-vl",
        {
            "text_config": QWEN, "tie_word_embeddings": False,
            "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14},
        },
        8_291_375_616,
        44.6,
    ),
    "qwen2.5-vl": (
        "qwen2-5-vl",
        {
            "text_config": QWEN, "tie_word_embeddings": False,
            "vision_config": {
                "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584, "num_heads": 16, "patch_size": 14,
            },
        },
        8_292_166_656,
        44.6,
    ),
    "internvl3": (
        "internvl",
        {
            "text_config": {**QWEN, "model_type": "qwen2", "vocab_size": 151674},
            "vision_config": {
                "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
                "image_size": [448, 448], "patch_size": [14, 14], "use_qk_norm": False, "attention_bias": True,
            },
        },
        7_944_373_760,
        27.5,
    ),
    "gemma-3": (
        "gemma3",
        {
            "text_config": {
                "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8,
                "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
            },
            "vision_config": {
                "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
                "num_attention_heads": 16, "image_size": 896, "patch_size": 14, "vision_use_head": False,
            },
            "mm_tokens_per_image": 256,
        },
        4_300_079_472,
        2.95,
    ),
}  # fmt: skip
PUBLISHED["llava-med"] = (
    "llava-med",
    {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    7_566_219_264,
    20.98,
)  # fmt: skip
SAME = {"lingshu": "qwen2.5-vl", "medgemma": "gemma-3"}


@pytest.mark.parametrize("name", [*PUBLISHED, *SAME])
def test_the_published_configuration_has_the_published_number_of_parameters(name: str) -> None:
    architecture, fields, expected, _ = PUBLISHED[SAME.get(name, name)]
    assert counting.parameters(base.module_name("generative", architecture), fields) == expected
    entry = config.from_files([ROOT / "config/config.yaml"], ROOT).models[name]
    assert (entry.about.parameters, entry.architecture) == (expected, architecture)


@pytest.mark.parametrize("name", PUBLISHED)
def test_adapters_and_projector_have_the_sizes_of_the_facts(name: str) -> None:
    """All seven linear layers of the decoder at r=16, and the projector whole; on the meta device."""
    import importlib

    architecture, fields, _, of_projector = PUBLISHED[name]
    module = importlib.import_module(base.module_name("generative", architecture))
    with torch.device("meta"):
        model = module.skeleton(fields)
    own = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Generative)]
    family = next(value for value in own if hasattr(value, "projector"))
    hit = [layer for layer_name, layer in model.named_modules() if re.fullmatch(family.lora_targets, layer_name)]
    adapters = sum(16 * (layer.in_features + layer.out_features) for layer in hit)
    facts = {"llava-1.5": 39.98, "qwen2-vl": 40.37, "qwen2.5-vl": 40.37, "internvl3": 40.37, "gemma-3": 29.80, "llava-med": 41.94}
    assert round(adapters / 1e6, 2) == facts[name]
    projector = next(layer for layer_name, layer in model.named_modules() if layer_name.endswith(family.projector[0]))
    assert sum(value.numel() for value in projector.parameters()) / 1e6 == pytest.approx(of_projector, abs=0.06)


# --- tiny checkpoints


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Generative:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tiny_generative.checkpoint(family, tmp_path_factory.mktemp(family) / "m")
        loaded: Generative = base.load(base.module_name("generative", family), str(folder), None)
    return loaded


def queries(n: int = 6) -> list[Query]:
    """Questions of different length about images of different size."""
    rng = np.random.default_rng(0)
    sizes = [(56 + 28 * (place % 2), 56 + 14 * (place % 3), 3) for place in range(n)]
    images = [Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)) for size in sizes]
    return [Query(f"sample {place}", image, "Is it red?" + " please" * (2 * place)) for place, image in enumerate(images)]


def test_a_batch_answers_as_one_at_a_time(model: Generative) -> None:
    asking = queries()
    assert model.device.type == "cpu" and model.model.dtype == torch.float32
    together = model.generate(model.inputs(asking, 10), 10)
    assert together == [model.generate(model.inputs([query], 10), 10)[0] for query in asking]


def test_the_image_and_the_question_matter(model: Generative) -> None:
    one = queries(1)[0]
    black = one._replace(image=Image.new("RGB", one.image.size))
    other = one._replace(text="Where is the liver?")
    with torch.inference_mode():
        logits = [model.model(**model.placed(model.inputs([query], 1))).logits[0, -1] for query in (one, black, other)]
    assert not torch.allclose(logits[0], logits[1], atol=1e-4) and not torch.allclose(logits[0], logits[2], atol=1e-4)


def test_labels_cover_exactly_the_answer_and_every_processor_key_is_there(model: Generative) -> None:
    asking, answers = queries(3), ["yes", "a long answer of unusual words", "left"]
    batch = model.train_batch(asking, answers)
    learned = batch["labels"] != IGNORED
    for row, answer in enumerate(answers):
        assert model.tokenizer.decode(batch["labels"][row][learned[row]]) == model.completion(answer)
    assert not bool((learned & (batch["attention_mask"] == 0)).any())
    assert not bool((learned & (batch["input_ids"] == model.image_token_id)).any())
    assert set(batch) == {*model.encode(asking), "labels"}


def test_the_first_token_stands_once(model: Generative, family: str) -> None:
    ids = model.inputs(queries(2), 4)["input_ids"]
    if (first := model.tokenizer.bos_token_id) is not None:
        assert ((ids == first).sum(dim=1) == 1).all(), family


def test_adapters_go_into_the_decoder_alone(model: Generative) -> None:
    hit = [name for name, _ in model.model.named_modules() if re.fullmatch(model.lora_targets, name)]
    assert len(hit) == 2 * 7 and not [name for name in hit if "vision" in name or "visual" in name]
    assert [name for name, _ in model.model.named_modules() if name.endswith(model.projector[0])]


def job(family: str, folder: Path, scratch: Path) -> Any:
    made = asked.job("d", folder, scratch, {"epochs": 2, "dropout": 0.1, "learning_rate": 5e-3, "projector_learning_rate": 5e-3})
    return made._replace(source=Source(base.module_name("generative", family), str(folder), None, 16))


class Killed(BaseException):
    """Stands for a signal."""


def test_training_is_certified_read_back_and_survives_a_kill(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(4, 2, 2))
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    whole = generative_lora.adapt(job(family, folder, tmp_path / "whole"))
    certificate.require(whole.certificate)
    evidence = whole.certificate.evidence
    assert evidence.adapters == 2 * 2 * 7 and evidence.text is not None
    assert evidence.text.n_watched and evidence.text.projector_saved and not evidence.text.keys_dropped
    assert [name for name in tuned.saved_names(whole.weights) if "modules_to_save" in name]
    steps = 0
    backward = generative_lora.Learner.loss

    def dying(self: Any, places: Any, inputs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Killed
        return backward(self, places, inputs)

    monkeypatch.setattr(generative_lora.Learner, "loss", dying)
    with pytest.raises(Killed):
        generative_lora.adapt(job(family, folder, tmp_path / "killed"))
    monkeypatch.setattr(generative_lora.Learner, "loss", backward)
    again = generative_lora.adapt(job(family, folder, tmp_path / "killed"))
    assert again.weights.read_bytes() == whole.weights.read_bytes()


def test_a_checkpoint_of_another_family_is_named(family: str, tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    found = json.loads((folder / "config.json").read_text())["model_type"]
    expected = "set `architecture: llava-med`" if family == "llava-med" else f"is a checkpoint of '{found}', not of 'llava'"
    shutil.copy(tiny_generative.checkpoint("qwen2-vl", tmp_path / "other") / "chat_template.jinja", folder)
    for file in ("processor_config.json", "preprocessor_config.json"):
        if not (folder / file).exists() and (tmp_path / "other" / file).exists():
            shutil.copy(tmp_path / "other" / file, folder)
    with pytest.raises(MedbenchError, match=expected):
        base.load(base.module_name("generative", "llava"), str(folder), None)


def test_a_checkpoint_without_chat_template_is_named(family: str, tmp_path: Path) -> None:
    if family == "llava-med":
        pytest.skip("its chat template is the architecture's own")
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(MedbenchError, match="has no chat template"):
        base.load(base.module_name("generative", family), str(folder), None)


def test_llava_med_is_renamed_padded_and_given_its_tokens(tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint("llava-med", tmp_path / "m")
    loaded: Generative = base.load(base.module_name("generative", "llava-med"), str(folder), None)
    raw = {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}
    own = loaded.model.state_dict()
    for original, new in (
        ("model.layers.1.mlp.up_proj.weight", "model.language_model.layers.1.mlp.up_proj.weight"),
        ("model.mm_projector.2.bias", "model.multi_modal_projector.linear_2.bias"),
        ("model.vision_tower.vision_tower.vision_model.post_layernorm.weight", "model.vision_tower.post_layernorm.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ):
        assert torch.equal(own[new][: len(raw[original])], raw[original]), original
    assert own["lm_head.weight"].shape[0] % 64 == 0 and loaded.image_token_id == loaded.tokenizer.convert_tokens_to_ids("<image>")
    assert loaded.prompt("Is it?") == "<s>[INST] <image>\nIs it? [/INST]"
    wide = Image.new("RGB", (112, 56), "white")
    pixels = loaded.encode([Query("s", wide, "Is it?")])["pixel_values"][0]
    assert pixels.shape == (3, 56, 56) and float(pixels[0, 0, 28]) < 1 < float(pixels[0, 28, 28]), "padded above and below, not cropped"
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MedbenchError, match="tensors are missing"):
        base.load(base.module_name("generative", "llava-med"), str(folder), None)


@pytest.mark.parametrize(
    ("name", "key"), [("qwen2-5-vl", "mm_token_type_ids"), ("gemma3", "token_type_ids"), ("qwen2-vl", "image_grid_thw")]
)
def test_a_processor_key_that_never_reaches_the_model_is_caught(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen2.5-VL and Gemma train on without it, with wrong positions."""
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 1, 1))
    folder = tiny_generative.checkpoint(name, tmp_path / "m")
    plain = Generative.placed

    def forgetful(self: Generative, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return plain(self, {kept: value for kept, value in inputs.items() if kept != key})

    monkeypatch.setattr(Generative, "placed", forgetful)
    try:
        adapted = generative_lora.adapt(job(name, folder, tmp_path / "w"))
    except (ValueError, RuntimeError, TypeError, AttributeError):
        assert name == "qwen2-vl", "this one fails by itself"
        return
    assert any(f"was not given {key}" in failure for failure in adapted.certificate.failures), adapted.certificate.failures
