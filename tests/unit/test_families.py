"""Every generative family: batches, training, certificates, kills and parameter counts."""

import json
import math
import multiprocessing
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import PreTrainedModel

from medbench import config
from medbench.adapt import certificate, generative_lora, tuned
from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import limits
from medbench.models import counting, generative_base, hub, lettering, loading, shared_prefix
from medbench.models.checkpoint import Source
from medbench.models.generative_base import BLOCK, IGNORED, REPEATED, Generative, Query, repeats
from tests.unit import asked, tiny_generative
from tests.unit.tiny_generative import ALL

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
    "qwen3-vl": (
        "qwen3-vl",
        {
            "text_config": {
                "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
                "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
            },
            "vision_config": {
                "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 4096, "num_heads": 16, "patch_size": 16,
                "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
            },
        },
        8_767_123_696,
        40.1,
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
PUBLISHED["vila-1.5"] = (
    "vila",
    {
        "llm_cfg": {
            "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 500_000.0,
        },
        "vision_tower_cfg": {
            "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
            "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
        },
    },
    8_494_155_840,
    35.67,
)  # fmt: skip
GEMMA_TOWER = PUBLISHED["gemma-3"][1]["vision_config"]
# Of the same architectures in other sizes: parameters alone.
SIZES: dict[str, tuple[str, dict[str, Any], int, float]] = {
    "qwen2.5-vl-3b": (
        "qwen2-5-vl",
        {
            "text_config": {
                "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
                "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
            },
            "vision_config": {**PUBLISHED["qwen2.5-vl"][1]["vision_config"], "out_hidden_size": 2048}, "tie_word_embeddings": True,
        },
        3_754_622_976,
        0.0,
    ),
    "medgemma-27b": (
        "gemma3",
        {
            "text_config": {
                "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32,
                "num_key_value_heads": 16, "head_dim": 128, "vocab_size": 262208,
            },
            "vision_config": GEMMA_TOWER, "mm_tokens_per_image": 256,
        },
        27_432_406_640,
        0.0,
    ),
}  # fmt: skip
SAME = {"lingshu": "qwen2.5-vl", "medgemma": "gemma-3", "medgemma-1.5": "gemma-3", "vila-m3": "vila-1.5"}


@pytest.mark.parametrize("name", [*PUBLISHED, *SAME, *SIZES])
def test_the_published_configuration_has_the_published_number_of_parameters(name: str) -> None:
    architecture, fields, expected, _ = (PUBLISHED | SIZES)[SAME.get(name, name)]
    assert counting.parameters(loading.module_name("generative", architecture), fields) == expected
    entry = config.from_files([ROOT / "config/config.yaml"], ROOT).models[name]
    assert (entry.about.parameters, entry.architecture) == (expected, architecture)


@pytest.mark.parametrize("name", PUBLISHED)
def test_adapters_and_projector_have_the_sizes_of_the_facts(name: str) -> None:
    """All seven linear layers of the decoder at r=16, and the projector whole; on the meta device."""
    import importlib

    architecture, fields, _, of_projector = PUBLISHED[name]
    module = importlib.import_module(loading.module_name("generative", architecture))
    with torch.device("meta"):
        model = module.skeleton(fields)
    own = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Generative)]
    family = next(value for value in own if hasattr(value, "projector"))
    hit = [layer for layer_name, layer in model.named_modules() if re.fullmatch(family.lora_targets, layer_name)]
    adapters = sum(16 * (layer.in_features + layer.out_features) for layer in hit)
    facts = {"llava-1.5": 39.98, "qwen2-vl": 40.37, "qwen2.5-vl": 40.37, "internvl3": 40.37, "gemma-3": 29.80, "llava-med": 41.94}
    facts |= {"vila-1.5": 41.94, "qwen3-vl": 43.65}
    assert round(adapters / 1e6, 2) == facts[name]
    projector = next(layer for layer_name, layer in model.named_modules() if layer_name.endswith(family.projector[0]))
    assert sum(value.numel() for value in projector.parameters()) / 1e6 == pytest.approx(of_projector, abs=0.06)


# --- tiny checkpoints


@pytest.fixture(scope="module", params=ALL)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


of_two = pytest.mark.parametrize("family", tiny_generative.families("llava", "qwen2-5-vl"), indirect=True, scope="module")
"""For what is shared code: they differ in tower, positions and processor. That all of them train is in tests/workflow/test_export.py."""


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Generative:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tiny_generative.checkpoint(family, tmp_path_factory.mktemp(family) / "m")
        loaded: Generative = loading.load(Source(loading.module_name("generative", family), str(folder)))
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


def test_questions_about_one_image_are_answered_over_its_keys_and_values(model: Generative, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each alone: images of different size, one of them asked once, prompts of different length; also without any image."""
    shown = queries(3)
    texts = ["Is it red?", "Where is the liver, please?", "Is it red? Or is it the left one that is large and round?", "no", "Is it?"]
    asking = [query._replace(text=text) for query, text in zip([shown[place] for place in (1, 0, 1, 2, 0)], texts, strict=True)]
    seen = []
    plain = model.generated
    monkeypatch.setattr(model, "generated", lambda inputs, *more, **named: seen.append(inputs) or plain(inputs, *more, **named))
    for some in (asking, [query._replace(image=None) for query in asking]):
        model.require_images(len(some[0].images))
        put = shared_prefix.prompts(model, some, 10)
        assert isinstance(put, shared_prefix.Begun) and len(put.shared["input_ids"]) == len({id(query.image) for query in some})
        del seen[:]
        assert shared_prefix.answers(model, put, 10) == [model.generate(model.inputs([query], 10), 10)[0] for query in some]
        assert [bool((inputs["input_ids"] == model.image_token_id).any()) for inputs in seen[:2]] == [some is asking, False]
    assert isinstance(shared_prefix.prompts(model, shown, 10), dict), "nothing is shared"
    twice = [shown[0], shown[0], shown[0]._replace(text=f"{shown[0].text} Or not?"), shown[1]]
    put = shared_prefix.prompts(model, twice, 10)
    assert shared_prefix.answers(model, put, 10) == [model.generate(model.inputs([query], 10), 10)[0] for query in twice], "equal questions"
    with pytest.raises(MedbenchError, match=r"sample 0: the question takes \d+ tokens .* and 10 for the answer, the model reads"):
        shared_prefix.prompts(model, [asking[0], asking[1]._replace(text="why " * model.context), *asking[2:]], 10)


def test_a_mark_in_a_question_is_no_image_without_features(model: Generative) -> None:
    """Shared keys and values would take the mark of a second image for a word; a whole prompt is refused, or reads the mark as text."""
    query = queries(1)[0]
    for mark in {model.tokenizer.convert_ids_to_tokens(model.image_token_id), getattr(model.processor, "boi_token", model.marks[0])}:
        asking = [query, query._replace(name="another", text=f"Is it {mark} red?")]
        assert mark in model.marks
        try:
            model.inputs(asking, 4)
        except MedbenchError:
            with pytest.raises(MedbenchError, match="another"):
                shared_prefix.prompts(model, asking, 4)
        else:
            assert isinstance(shared_prefix.prompts(model, asking, 4), dict)


def test_a_prompt_longer_than_a_sliding_window_is_read_whole(tmp_path: Path) -> None:
    """Gemma 3 slides 1,024 tokens, of which several images leave no room; fillers in the middle of a batch would count as tokens."""
    loaded = tiny_generative.load("gemma3", tiny_generative.checkpoint("gemma3", tmp_path / "m"))
    shown = queries(2)
    asking = [shown[0], shown[1], shown[0]._replace(text="Where is the liver, please?")]
    text = loaded.model.config.get_text_config()
    length = int(loaded.inputs(asking, 10)["attention_mask"].sum(dim=1).max()) + 10
    for window, shares in ((length, True), (length - 1, False)):
        text.sliding_window = window
        put = shared_prefix.prompts(loaded, asking, 10)
        assert isinstance(put, shared_prefix.Begun) == shares
        assert shared_prefix.answers(loaded, put, 10) == [loaded.generate(loaded.inputs([query], 10), 10)[0] for query in asking]
    equal = [query._replace(text=text) for query, text in zip(asking, ("Is it red?", "Is it blue?", "Is it green?"), strict=True)]
    put = shared_prefix.prompts(loaded, equal, 10)
    assert isinstance(put, shared_prefix.Begun), "without fillers the window counts right"
    assert shared_prefix.answers(loaded, put, 10) == [loaded.generate(loaded.inputs([query], 10), 10)[0] for query in equal]


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
        written = model.tokenizer.decode(batch["labels"][row][learned[row]])
        assert written.lstrip() == model.completion(answer).lstrip()  # SentencePiece drops a space before the first word
    assert not bool((learned & (batch["attention_mask"] == 0)).any())
    assert not bool((learned & (batch["input_ids"] == model.image_token_id)).any())
    assert set(batch) == {*model.encode(asking), "labels"}


def test_the_loss_is_the_librarys_own_over_all_logits(model: Generative) -> None:
    batch = model.train_batch(queries(3), ["yes", "a long answer of unusual words", "left"])
    learned = (batch["labels"] != IGNORED).any(dim=0).nonzero()
    for first in (int(learned[0]), 0):  # labels that planted faults put onto the first token, which nothing predicts
        batch["labels"][:, first] = batch["input_ids"][:, first]
        with torch.inference_mode():
            whole, shapes = float(model.model(**model.placed(batch)).loss), list[int]()
            handle = model.model.register_forward_hook(lambda module, given, output: shapes.append(output.logits.shape[1]))  # noqa: B023
            assert float(model.loss(batch)) == pytest.approx(whole, rel=1e-6)
            handle.remove()
        if first:
            assert shapes == [batch["labels"].shape[1] - first + 1], "logits over more than the answers"


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
    return made._replace(source=Source(loading.module_name("generative", family), str(folder), None, 16))


class Killed(BaseException):
    """Stands for a signal."""


@of_two
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
    assert load_file(whole.weights / tuned.PROJECTOR)
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
    files = [{file.name: file.read_bytes() for file in adapted.weights.iterdir()} for adapted in (again, whole)]
    assert files[0] == files[1] and len(files[0]) == 3


def test_a_checkpoint_of_another_family_is_named(family: str, tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    found = json.loads((folder / "config.json").read_text())["model_type"]
    original = {"llava-med": "set `architecture: llava-med`", "vila": "set `architecture: vila` where it is VILA"}
    expected = original.get(family, f"is a checkpoint of '{found}', not of '{'internvl' if family == 'llava' else 'llava'}'")
    tiny_generative.checkpoint("qwen2-vl", tmp_path / "other")
    for file in ("chat_template.json", "processor_config.json", "preprocessor_config.json"):
        if not (folder / file).exists() and (tmp_path / "other" / file).exists():
            shutil.copy(tmp_path / "other" / file, folder)
    with pytest.raises(MedbenchError, match=expected):
        loading.load(Source(loading.module_name("generative", "llava" if family != "llava" else "internvl"), str(folder)))


def test_a_checkpoint_without_chat_template_is_named(family: str, tmp_path: Path) -> None:
    if family in ("llava-med", "vila"):
        pytest.skip("its chat template is the architecture's own")
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    for file in folder.glob("chat_template.*"):
        file.unlink()
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    with pytest.raises(MedbenchError, match="has no chat template"):
        loading.load(Source(loading.module_name("generative", family), str(folder)))


WITH_IMAGE = "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}QUESTION{% endif %}{% endfor %}"


def with_template(family: str, folder: Path, text: str) -> Source:
    """A tiny checkpoint whose chat template is another, `IMAGE` standing for what its processor looks for."""
    tiny_generative.checkpoint(family, folder)
    image = {"gemma3": "<start_of_image>", "internvl": "<IMG_CONTEXT>", "llava": "<image>"}
    text = text.replace("IMAGE", image.get(family, "<|vision_start|><|image_pad|><|vision_end|>"))
    (folder / "chat_template.json").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(text)
    return Source(loading.module_name("generative", family), str(folder), None, 16)


@of_two
def test_a_chat_template_that_loses_the_question_or_the_image_is_named(family: str, tmp_path: Path) -> None:
    """For every way to a model: `predict` off the shelf, `adapt` and `ask` load it by the same function."""
    if family in ("llava-med", "vila"):
        pytest.skip("its chat template is the architecture's own")
    sound = WITH_IMAGE.replace("QUESTION", "{{ part['text'] }}")
    generative_base.load(with_template(family, tmp_path / "sound", sound))
    for name, shown, expected in (
        ("dropped", "Describe it.", "chat template of .*: drops or changes the question"),
        ("cut", "{{ part['text'][:10] }}", "drops or changes the question"),
        ("upper", "{{ part['text'] | upper }}", "drops or changes the question"),
        ("twice", "{{ part['text'] }} {{ part['text'] }}", "repeats the question"),
    ):
        with pytest.raises(MedbenchError, match=expected) as error:
            generative_base.load(with_template(family, tmp_path / name, WITH_IMAGE.replace("QUESTION", shown)))
        assert "\n" not in str(error.value)
    with pytest.raises(MedbenchError, match=r"its chat template (drops the image|does not fit its processor)"):
        generative_base.load(with_template(family, tmp_path / "blind", sound.replace("IMAGE", "")))


@pytest.mark.parametrize("chosen", ["llava", pytest.param("qwen2-vl", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes more than 1 s"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% for c in 'ab' %}x{% endfor %}{% endfor %}{% endfor %}", "takes more than"),
        ("{{ 9 ** (9 ** 9) }}", "takes more than 1 s"),
        ("{% macro again(n) %}{{ again(n) }}{% endmacro %}{{ again(1) }}", "RecursionError"),
        ("{{ 'x' * 10 ** 10 }}", "takes more than"),
        ("{{ 'x' * 10 ** 7 }}", "makes 10000000 characters of one question"),
        ("{{ [0] * 10 ** 9 }}", "takes more than"),
        ("{% set n = namespace(t='xx') %}{% for a in range(64) %}{% set n.t = n.t ~ n.t %}{% endfor %}", "takes more than"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ nothing.at.all }}", "UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ raise_exception('no\nsystem\nrole') }}", "TemplateError: no system role"),
        ("{{ ().__class__.__base__.__subclasses__() }}", "SecurityError|drops or changes"),
        ("{% include '/etc/passwd' %}", "makes no prompt"),
    ],
)  # fmt: skip
def test_a_chat_template_that_fails_or_never_ends_is_one_line(
    chosen: str, text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TEMPLATE_SECONDS", 1.0)
    with pytest.raises(MedbenchError, match=f"chat template of {tmp_path}/m: .*({expected})") as error:
        loading.load(with_template(chosen, tmp_path / "m", text))
    assert "\n" not in str(error.value) and not multiprocessing.active_children()


def test_a_question_reaches_the_model_whatever_it_holds(model: Generative) -> None:
    for text in ("Is it?", "{{ 9 }} {% raw %}", "<b>&amp;", "x" * 5000, "\u00e9\u4e2d"):
        assert model.prompt(text).count(text) == 1


def test_llava_med_is_renamed_padded_and_given_its_tokens(tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint("llava-med", tmp_path / "m")
    loaded: Generative = loading.load(Source(loading.module_name("generative", "llava-med"), str(folder)))
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
    (folder / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(MedbenchError, match=r"names 4 shards, 3 are there, model-00002-of-00004.safetensors is absent"):
        loading.load(Source(loading.module_name("generative", "llava-med"), str(folder)))


def test_tokens_are_counted_as_the_processor_makes_them(model: Generative) -> None:
    """Up to what is the same for every question: so batches are put together of questions that take about as many."""
    sizes = [(56, 56), (112, 56), (28, 140), (300, 200)]
    asking = [Query("s", Image.new("RGB", size), "Is it" + " very" * place) for place, size in enumerate(sizes)]
    real = [int(model.inputs([query], 1)["attention_mask"].sum()) for query in asking]
    counted = model.lengths([query.text for query in asking], [[query.image.size] for query in asking])
    assert len({found - expected for found, expected in zip(real, counted, strict=True)}) == 1


@of_two
def test_an_answer_that_goes_round_in_circles_is_stopped_alone(model: Generative) -> None:
    """Untrained models do, given the room; the others of the batch go on.

    In float64: untrained models are near a tie at some of so many tokens, and float32 rounds a batch otherwise on some processors.
    """
    asking = queries(4)
    model.model.double()
    try:
        together = model.generate(model.inputs(asking, 150), 150)
        assert together == [model.generate(model.inputs([query], 150), 150)[0] for query in asking]
    finally:
        model.model.float()
    for answer in together:
        assert (answer.finish_reason == "repetition") <= (REPEATED <= answer.n_tokens < 150)


def test_answers_in_circles() -> None:
    yes, other = [1, 2, 3] * 20, list(range(60))
    assert repeats(torch.tensor([yes, other])).tolist() == [True, False]
    assert repeats(torch.tensor([yes[: REPEATED - 1]])).tolist() == [False], "too short to say"
    assert repeats(torch.tensor([[9, *yes[:REPEATED]], [*yes[:REPEATED], 9]])).tolist() == [True, False]
    assert repeats(torch.tensor([list(range(BLOCK + 1)) * 9])).tolist() == [False], "a longer block is a list, not a circle"


def test_fillers_behind_a_stopped_answer_are_not_its_end(model: Generative, monkeypatch: pytest.MonkeyPatch) -> None:
    end, word, other = next(iter(model.ends)), *(model.tokens(" yes")[0], model.tokens(" left")[0])
    rows = torch.tensor([[word] * REPEATED + [end] * 6, [other] * 4 + [end] * (REPEATED + 2), [word, other] * 15])
    monkeypatch.setattr(model.model, "generate", lambda **given: torch.cat([given["input_ids"], rows], dim=1))
    found = model.generate(model.inputs(queries(3), 30), 30)
    assert [(answer.finish_reason, answer.n_tokens) for answer in found] == [
        ("repetition", REPEATED),
        ("stop", 4),
        ("repetition", REPEATED),
    ]


@of_two
@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights_answer_train_and_come_back(family: str, bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes", reason="4- and 8-bit weights need bitsandbytes")
    # On CPUs with bfloat16 it packs weights for a faster product, in blocks of 64: wider than a tiny model's layers.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 1, 1))
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    source = Source(loading.module_name("generative", family), str(folder), None, 16, bits)
    loaded = generative_base.load(source)
    kinds = {type(layer).__name__ for name, layer in loaded.model.named_modules() if re.fullmatch(loaded.lora_targets, name)}
    assert kinds == {"Linear4bit" if bits == 4 else "Linear8bitLt"}
    projector = next(part for name, part in loaded.model.named_modules() if name.endswith(loaded.projector[0]))
    assert all(value.is_floating_point() for value in projector.parameters()), "it is trained whole"
    asking = queries(4)
    assert len(loaded.generate(loaded.inputs(asking, 5), 5)) == 4
    adapted = generative_lora.adapt(job(family, folder, tmp_path / "w")._replace(source=source))
    assert not adapted.certificate.failures
    with pytest.raises(MedbenchError, match="is an adapter for another base"):
        tuned.read(adapted.weights, generative_base.load(source._replace(bits=None)), source._replace(bits=None))


def test_a_missing_library_for_bits_is_named(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    with pytest.raises(MedbenchError, match="4-bit weights need bitsandbytes, which is not installed; pip install bitsandbytes"):
        loading.load(Source(loading.module_name("generative", family), str(folder)), bits=4)


def test_a_model_that_is_spread_answers_equally(family: str, model: Generative, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By accelerate's device map, which has only the CPU to give here."""
    plain = hub.placement
    monkeypatch.setattr(hub, "placement", lambda **given: plain(**given)._replace(spread=True))
    made, asked_for = PreTrainedModel.from_pretrained.__func__, []  # type: ignore[attr-defined]

    def watched(cls: Any, *given: Any, **more: Any) -> Any:
        asked_for.append(more.get("device_map"))
        return made(cls, *given, **more)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(watched))
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    spread: Generative = loading.load(Source(loading.module_name("generative", family), str(folder)))
    assert asked_for == ["auto"]
    asking = queries(3)
    assert spread.generate(spread.inputs(asking, 8), 8) == model.generate(model.inputs(asking, 8), 8)


def test_exceptions_of_a_processor_stand_in_the_registry(tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint("internvl", tmp_path / "m")
    source = Source(loading.module_name("generative", "internvl"), str(folder), None, 16)
    wide = Query("s", Image.new("RGB", (112, 56)), "Is it?")
    tokens = [
        int((loaded.inputs([wide], 1)["input_ids"] == loaded.image_token_id).sum())
        for loaded in (generative_base.load(source), generative_base.load(source._replace(processor={"crop_to_patches": False})))
    ]
    assert tokens == [12, 4], "two tiles and a thumbnail; the image alone"
    with pytest.raises(MedbenchError, match=r"its GotOcr2ImageProcessor\w* knows no 'max_tiles'; choose from .*max_patches"):
        generative_base.load(source._replace(processor={"max_tiles": 3}))


def test_an_image_that_a_processor_refuses_is_named(tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint("qwen2-vl", tmp_path / "m")
    loaded: Generative = loading.load(Source(loading.module_name("generative", "qwen2-vl"), str(folder)))
    asking = queries(3)
    asking[1] = asking[1]._replace(image=Image.new("RGB", (3000, 10)))
    with pytest.raises(MedbenchError, match=r"sample 1: Qwen2VLProcessor refuses it with its image of 3000x10 \(absolute aspect ratio"):
        loaded.inputs(asking, 4)


@pytest.mark.parametrize(("name", "base_of_positions"), [("llava-med", 1_000_000.0), ("vila", 500_000.0)])
def test_original_layouts_keep_their_positions_and_load_equally_twice(name: str, base_of_positions: float, tmp_path: Path) -> None:
    """`rope_theta` moved in newer configurations, and a decoder that turns by another base answers nonsense silently."""
    folder = tiny_generative.checkpoint(name, tmp_path / "m")
    first, second = (loading.load(Source(loading.module_name("generative", name), str(folder))) for _ in range(2))
    assert first.model.config.text_config.rope_parameters["rope_theta"] == base_of_positions
    assert tuned.frozen_digest(first) == tuned.frozen_digest(second)
    vocabulary, rows = len(first.tokenizer), first.model.lm_head.weight
    assert rows.shape[0] % 64 == 0 and not bool(rows[vocabulary:].any())
    never = set(first.model.generation_config.suppress_tokens)
    assert {first.image_token_id, first.tokenizer.pad_token_id, *range(vocabulary, rows.shape[0])} <= never


def test_vila_is_its_parts(tmp_path: Path) -> None:
    """Against SigLIP and Llama as transformers loads them from their folders, and the projector by hand."""
    from transformers import LlamaForCausalLM, SiglipVisionModel

    folder = tiny_generative.checkpoint("vila", tmp_path / "m")
    loaded: Generative = loading.load(Source(loading.module_name("generative", "vila"), str(folder)))
    llm = LlamaForCausalLM.from_pretrained(folder / "llm", dtype=torch.float32).eval()
    tower = SiglipVisionModel.from_pretrained(folder / "vision_tower", dtype=torch.float32).eval()
    raw = {name: value.float() for name, value in load_file(folder / "mm_projector/model.safetensors").items()}
    query = queries(1)[0]
    inputs = loaded.inputs([query], 1)
    with torch.inference_mode():
        patches = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][0]
        side = 5
        grid = {(row, column): patches[row * side + column] for row in range(side) for column in range(side)}
        nothing = torch.zeros(patches.shape[1])
        joined = [
            torch.cat([grid.get((row + down, column + right), nothing) for down in (0, 1) for right in (0, 1)])
            for column in range(0, side, 2)
            for row in range(0, side, 2)
        ]  # column after column
        hidden = torch.nn.functional.layer_norm(torch.stack(joined), (4 * patches.shape[1],), raw["layers.1.weight"], raw["layers.1.bias"])
        hidden = torch.nn.functional.gelu(hidden @ raw["layers.2.weight"].T + raw["layers.2.bias"])
        hidden = hidden @ raw["layers.4.weight"].T + raw["layers.4.bias"]
        ids = inputs["input_ids"][0]
        places = (ids == loaded.image_token_id).nonzero().flatten().tolist()
        assert len(places) == 9
        words = llm.model.embed_tokens(ids.masked_fill(ids == loaded.image_token_id, 0))
        words[places] = hidden
        expected = llm(inputs_embeds=words[None]).logits[0, -1]
        found = loaded.model(**loaded.placed(inputs)).logits[0, -1, : len(expected)]
    assert torch.allclose(found, expected, atol=1e-5)


def test_vila_speaks_as_its_decoder_was_taught(tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint("vila", tmp_path / "m")
    module = loading.module_name("generative", "vila")
    llama: Generative = loading.load(Source(module, str(folder)))
    assert llama.prompt("Is it?").endswith("<image>\nIs it?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    assert llama.completion("no") == "no<|end_of_text|>"
    assert llama.tokenizer.convert_tokens_to_ids("<|eot_id|>") in llama.ends
    for file in ("tokenizer.json", "tokenizer_config.json"):  # a decoder without Llama 3's tokens: Vicuna's (3B, 13B)
        path = folder / "llm" / file
        path.write_text(path.read_text().replace("<|eot_id|>", "<unused>"))
    vicuna: Generative = loading.load(Source(module, str(folder)))
    assert vicuna.prompt("Is it?").endswith("user's questions. USER: <image>\nIs it? ASSISTANT:")
    assert vicuna.completion("no") == " no<|end_of_text|>"
    vicuna.train_batch(queries(2), ["yes", "no"])


@pytest.mark.parametrize(
    ("file", "key", "value", "expected"),
    [
        ("config.json", "s2", True, "has s2 True"),
        ("mm_projector/config.json", "mm_projector_type", "mlp2x_gelu", "has mm_projector_type 'mlp2x_gelu'"),
        ("vision_tower/config.json", "model_type", "intern_vit_6b", "has vision tower 'intern_vit_6b'"),
        ("config.json", "image_aspect_ratio", "dynamic_s2", "has image_aspect_ratio 'dynamic_s2'"),
        ("config.json", "mm_use_im_start_end", True, "has mm_use_im_start_end True"),
    ],
)
def test_a_vila_that_computes_otherwise_is_refused(file: str, key: str, value: Any, expected: str, tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint("vila", tmp_path / "m")
    config_file = folder / file
    config_file.write_text(json.dumps({**json.loads(config_file.read_text()), key: value}))
    with pytest.raises(MedbenchError, match=f"{expected}; architecture vila reads"):
        loading.load(Source(loading.module_name("generative", "vila"), str(folder)))
    shutil.rmtree(folder / "mm_projector")
    with pytest.raises(MedbenchError, match="is no checkpoint of VILA"):
        loading.load(Source(loading.module_name("generative", "vila"), str(folder)))


def test_a_checkpoints_own_decoding_rules_are_off(family: str, model: Generative, tmp_path: Path) -> None:
    """A penalty on repetition works without sampling too: it would hold for some models alone, and fall on the question's own words."""
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    place = folder / "generation_config.json"
    if not place.exists():
        pytest.skip("its original layout has no generation configuration that is read")
    given = {
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 2,
        "do_sample": True,
        "temperature": 0.2,
        "num_beams": 3,
        "min_new_tokens": 9,
    }
    place.write_text(json.dumps({**json.loads(place.read_text()), **given}))
    loaded: Generative = loading.load(Source(loading.module_name("generative", family), str(folder)))
    assert loaded.model.generation_config.eos_token_id == sorted(loaded.ends)
    asking = queries(4)
    assert loaded.generate(loaded.inputs(asking, 12), 12) == model.generate(model.inputs(asking, 12), 12)


@pytest.mark.parametrize("named", ["<|eot_id|>", "<|end_of_text|>"])
def test_both_ends_of_llama_3_end_vilas_answers(named: str, tmp_path: Path) -> None:
    """Whichever the checkpoint's tokenizer calls its end."""
    folder = tiny_generative.checkpoint("vila", tmp_path / "m")
    path = folder / "llm/tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": named}))
    loaded: Generative = loading.load(Source(loading.module_name("generative", "vila"), str(folder)))
    assert loaded.ends == set(loaded.tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|end_of_text|>"]))
    assert loaded.model.generation_config.eos_token_id == sorted(loaded.ends)
    assert loaded.completion("no") == "no<|end_of_text|>"


def test_a_device_too_small_for_the_weights_is_said_and_keeps_what_is_done(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_generative.checkpoint(family, tmp_path / "m")

    def full(cls: Any, *given: Any, **more: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(full))
    with pytest.raises(Interrupted, match=r"the GPU: its memory does not hold .*/m; end what else uses it, or raise `gpus` or set `bits`"):
        loading.load(Source(loading.module_name("generative", family), str(folder)))


def test_layers_that_are_left_over_for_the_cpu_are_refused() -> None:
    hub._refuse_offload({"model.visual": 0, "lm_head": 1}, Path("m"))
    with pytest.raises(Interrupted, match=r"the GPUs: their memory does not hold m: 2 parts are left over \(layers.7\); raise `gpus`"):
        hub._refuse_offload({"model": 0, "layers.7": "cpu", "lm_head": "disk"}, Path("m"))


def test_wrong_values_of_a_processor_blame_the_registry(tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint("qwen2-vl", tmp_path / "m")
    source = Source(loading.module_name("generative", "qwen2-vl"), str(folder), None, 16)
    for wrong in ({"do_resize": "perhaps"}, {"size": {"shortest_edge": 10}}):
        with pytest.raises(MedbenchError, match=r"does not take .*; fix `processor` in the registry"):
            generative_base.load(source._replace(processor=wrong))


@of_two
def test_the_trained_model_goes_before_its_file_is_read_back(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device may not hold two."""
    import weakref

    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 1, 1))
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    plain, alive = generative_base.load, []

    def watched(source: Source) -> Generative:
        assert not [found for found in alive if found() is not None], "the trained model is still there"
        loaded = plain(source)
        alive.append(weakref.ref(loaded.model))
        return loaded

    monkeypatch.setattr(generative_base, "load", watched)
    assert not generative_lora.adapt(job(family, folder, tmp_path / "w")).certificate.failures
    assert len(alive) == 2


@pytest.mark.parametrize("n_images", [0, 1, 3])
def test_letters_of_several_orders_are_those_of_whole_prompts(model: Generative, n_images: int) -> None:
    """Images and question go through the model once for all orders, whatever an image's places count; no image after some, too."""
    images = [Image.new("RGB", (56 + 28 * place, 56), (90 * place, 40, 9)) for place in range(n_images)]
    options = ["is it large", "no", "perhaps the left one", "very very very large"]
    model.require_images(n_images)
    queries = [
        Query("s", images[0] if images else None, f"{question}\n" + "\n".join(options[turn:] + options[:turn]), tuple(images[1:]))
        for question in ("Is it?", "Where is it, please?")
        for turn in range(4)
    ]
    ids = [[[10 + place, 30 + place] for place in range(4)]] * 8
    put = shared_prefix.prompts(model, queries, 0, [0] * 4 + [1] * 4)
    assert isinstance(put, shared_prefix.Begun) and len(put.ends) == 8 and len(put.shared["input_ids"]) == 2
    alone = [one for query in queries for one in lettering.letters(model, model.inputs([query], 0), ids[:1])]
    for first, second in zip(lettering.letters(model, put, ids), alone, strict=True):
        assert first.log_probabilities == pytest.approx(second.log_probabilities, abs=1e-4)
        assert first.mass == pytest.approx(sum(map(math.exp, first.log_probabilities)), abs=1e-5)
