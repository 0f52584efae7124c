"""The study's contrastive models: parameter counts of the published configurations, and what tiny checkpoints compute, by another way."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from transformers import AutoImageProcessor, AutoTokenizer, Blip2ForImageTextRetrieval

from medbench import config
from medbench.errors import MedbenchError
from medbench.models import counting, loading
from medbench.models.checkpoint import Checkpoint
from medbench.models.contrastive import medclip, medclip_published
from tests.unit import tiny

ROOT = Path(__file__).parents[2]
LARGE = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
# The published `config.json`s, as far as they differ from the classes' defaults.
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {
    "clip": ("clip", {}, 151_277_313),
    "pubmedclip": ("clip", {}, 151_277_313),
    "plip": ("clip", {}, 151_277_313),
    "siglip": ("siglip", {"text_config": {"projection_size": 768}, "vision_config": {"image_size": 224, "patch_size": 16}}, 203_155_970),
    "siglip-2": (
        "siglip",
        {"text_config": {"projection_size": 768, "vocab_size": 256000}, "vision_config": {"image_size": 224, "patch_size": 16}},
        375_187_970,
    ),
    "medsiglip": (
        "siglip",
        {"text_config": {**LARGE, "projection_size": 1152}, "vision_config": {**LARGE, "image_size": 448, "patch_size": 14}},
        878_300_338,
    ),
    "blip-2": (
        "blip2",
        {
            "vision_config": {
                "hidden_size": 1408,
                "intermediate_size": 6144,
                "num_hidden_layers": 39,
                "num_attention_heads": 16,
                "patch_size": 14,
            },
            "qformer_config": {"vocab_size": 30523, "encoder_hidden_size": 1408, "use_qformer_text_input": True},
            "num_query_tokens": 32,
            "image_text_hidden_size": 256,
        },
        1_172_032_258,
    ),
    "medclip": ("medclip", {}, 136_616_059),
    "biomedclip": (
        "open-clip",
        {
            "embed_dim": 512,
            "vision_cfg": {
                "timm_model_name": "vit_base_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
            },
            "text_cfg": {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256},
        },
        195_902_721,
    ),
}
OWN = ("blip2", "open-clip", "medclip")  # what does not follow transformers' layout through and through has its tests here


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_configuration_has_the_published_number_of_parameters(name: str, tmp_path: Path) -> None:
    architecture, fields, expected = PUBLISHED[name]
    if architecture == "open-clip":
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 30522}))
        fields = {**fields, "text_cfg": {**fields["text_cfg"], "hf_model_name": str(tmp_path)}}
    assert counting.parameters(loading.module_name("contrastive", architecture), fields) == expected
    entry = config.from_files([ROOT / "config/config.yaml"], ROOT).models[name]
    assert entry.about.parameters == expected and entry.architecture == architecture


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(params=OWN)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def images(n: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [tiny.picture(number % 2, rng) for number in range(n)]


TEXTS = ["a dark square", "lit", "a bright white square"]


def encoded(model: loading.Contrastive) -> loading.ImageOutput:
    with torch.inference_mode():
        return model.encode_images(model.to_device(np.stack([model.pixels(image) for image in images()])))


def test_blip2_equals_the_stock_classs_itc(tmp_path: Path) -> None:
    folder = tiny.checkpoint("blip2", tmp_path / "m")
    model, stock = tiny.load("blip2", folder), Blip2ForImageTextRetrieval.from_pretrained(folder).eval()
    stock.config.image_token_index = None  # with it, `forward` takes the text's first tokens for places of the image
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=images(), return_tensors="pt")["pixel_values"]
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = stock(pixel_values=pixels, **batch, use_image_text_matching_head=False).logits_per_image
        found, texts = encoded(model), model.encode_texts(TEXTS)
    unit = nn.functional.normalize(found.embeddings, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
    torch.testing.assert_close(unit.max(dim=1)[0], expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(found.features, stock.vision_model(pixels).last_hidden_state[:, 0])
    assert found.embeddings.shape == (3, 4, 16)


def test_open_clip_equals_its_own_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.checkpoint("open-clip", tmp_path / "m")
    model = tiny.load("open-clip", folder)
    settings = json.loads((folder / "open_clip_config.json").read_text())
    text = settings["model_cfg"]["text_cfg"]
    text["hf_model_name"] = str(folder / text["hf_model_name"])
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    stock, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    pixels = torch.stack([preprocess(image) for image in images()])
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding="max_length", max_length=24, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected_images, expected_texts = stock.eval().encode_image(pixels), stock.encode_text(batch)
    torch.testing.assert_close(encoded(model).features, expected_images, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.encode_texts(TEXTS), expected_texts, atol=1e-5, rtol=1e-5)
    assert model.scale == pytest.approx(float(stock.logit_scale.exp()))


def test_medclip_reads_the_original_names_and_averages_as_the_original_does(tmp_path: Path) -> None:
    folder = tiny.checkpoint("medclip", tmp_path / "m")
    model = tiny.load("medclip", folder)
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    own = model.model.state_dict()
    for name in ("layers.0.blocks.0.attention.q_proj.weight", "layers.1.blocks.0.mlp.fc2.bias"):
        original = tiny.original(f"vision_model.model.encoder.{name}")
        assert original in tensors and "proj" not in original and torch.equal(own[f"vision_model.model.encoder.{name}"], tensors[original])
    bert, head = model.model.text_model.model, model.model.text_model.projection_head
    for text, found in zip(TEXTS, model.encode_texts(TEXTS), strict=True):
        with torch.inference_mode():
            batch = AutoTokenizer.from_pretrained(folder / medclip.TOKENIZER)(text, return_tensors="pt")
            states = bert(**batch, output_hidden_states=True).hidden_states
            mean = sum(states[place].mean(dim=1) for place in (1, 2, -1)) / 3
            torch.testing.assert_close(found, head(mean)[0])
    assert torch.allclose(encoded(model).features.norm(dim=1), torch.ones(3))


def test_medclip_sees_grey_on_a_square_and_leaves_small_images_small(tmp_path: Path) -> None:
    model = medclip.load(Checkpoint(tiny.source("medclip", tiny.checkpoint("medclip", tmp_path / "m"))))
    pixels = model.pixels(Image.new("RGB", (400, 200), (255, 0, 0)))
    assert pixels.shape == (3, 224, 224) and (pixels[:, 0] == 0).all() and (pixels[:, 112] == 76).all()
    scaled = model.normalise(torch.from_numpy(pixels)[None])[0]
    assert float(scaled[0, 0, 0]) == pytest.approx(-0.58628 / 0.27950, abs=1e-5)
    assert float(scaled[0, 112, 0]) == pytest.approx((76 / 255 - 0.58628) / 0.27950, rel=1e-4)
    small = model.pixels(Image.new("RGB", (64, 64), (255, 255, 255)))
    assert (small > 0).mean() == pytest.approx((64 / 224) ** 2), "its pad_img never enlarges"
    model.encode_texts(["dark " * 70])
    with pytest.raises(MedbenchError, match="the model reads 77"):
        model.encode_texts(["dark " * 80])


def test_medclip_published_has_the_pixels_of_the_studys_code(tmp_path: Path) -> None:
    """Against torchvision's transforms as model/medclip.py of MedVLMBench (af52b91) composes them, without its words."""
    model = medclip_published.load(Checkpoint(tiny.source("medclip", tiny.checkpoint("medclip", tmp_path / "m"))))
    rng = np.random.default_rng(0)
    for size in ((300, 170), (90, 120), (224, 224)):
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        side = max(size)
        left, top = (side - size[0]) // 2, (side - size[1]) // 2
        edges = [left, top, side - size[0] - left, side - size[1] - top]
        squared = transforms.functional.pad(image, edges, fill=0)
        steps = transforms.Compose([transforms.Resize(224), transforms.CenterCrop((224, 224)), transforms.ToTensor()])
        scale = transforms.Normalize((0, 0, 0), (0.26862954, 0.26130258, 0.27577711))
        expected = scale(steps(squared) * 0.5862785803043838)
        torch.testing.assert_close(model.normalise(torch.from_numpy(model.pixels(image))[None])[0], expected)
    red = model.normalise(torch.from_numpy(model.pixels(Image.new("RGB", (50, 50), (255, 0, 0))))[None])
    assert float(red[0, 0].max()) == pytest.approx(2.1825, abs=1e-4) and float(red[0, 1:].max()) == 0


def test_an_image_alone_is_as_in_a_batch(architecture: str, tmp_path: Path) -> None:
    model = tiny.load(architecture, tiny.checkpoint(architecture, tmp_path / "m"))
    together = encoded(model)
    for number, image in enumerate(images()):
        with torch.inference_mode():
            alone = model.encode_images(model.to_device(np.stack([model.pixels(image)])))
        torch.testing.assert_close(alone.features[0], together.features[number], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.embeddings[0], together.embeddings[number], atol=1e-5, rtol=1e-4)
    texts = model.encode_texts(TEXTS)
    for text, expected in zip(TEXTS, texts, strict=True):
        torch.testing.assert_close(model.encode_texts([text])[0], expected, atol=1e-5, rtol=1e-4)


def test_activations_can_be_recomputed(architecture: str, tmp_path: Path) -> None:
    model = tiny.load(architecture, tiny.checkpoint(architecture, tmp_path / "m"))
    model.vision.requires_grad_(True)
    grads = []
    for again in (False, True):
        if again:
            model.checkpoint_gradients()
        model.vision.train()
        model.vision.zero_grad()
        model.encode_images(model.to_device(np.stack([model.pixels(image) for image in images()]))).features.square().sum().backward()
        grads.append({name: value.grad.clone() for name, value in model.vision.named_parameters() if value.grad is not None})
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) > 4
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], atol=1e-4, rtol=1e-3)


# --- wrong checkpoints


def weights(folder: Path) -> Path:
    return tiny.weights(folder)[0]


def cut(folder: Path) -> str:
    path = weights(folder)
    path.write_bytes(path.read_bytes()[:-500])
    return "cannot be read safely|its header promises"


def without(folder: Path) -> str:
    for path in tiny.weights(folder):
        path.unlink()
    return "holds no weights"


def lacking(folder: Path) -> str:
    tensors = tiny.tensors(folder)
    del tensors[max(name for name in tensors if name.endswith("weight"))]
    tiny.replace(folder, tensors)
    return "1 tensors are missing"


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path("evil").touch, ())


def pickled(folder: Path) -> str:
    path = weights(folder)
    path.unlink()
    name = {"open_clip_model.safetensors": "open_clip_pytorch_model.bin", "model.safetensors": "pytorch_model.bin"}.get(
        path.name, path.name
    )
    (folder / name).write_bytes(pickle.dumps({"weight": Evil()}))
    return "cannot be read safely"


def foreign(folder: Path) -> str:
    for path in folder.iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
    shutil.copytree(tiny.checkpoint("clip", folder.parent / "clip"), folder, dirs_exist_ok=True)
    return "is a checkpoint of 'clip', not of 'blip-2'|holds no usable open_clip_config.json|tensors are missing|size mismatch"


@pytest.mark.parametrize("spoil", [cut, without, lacking, pickled, foreign])
def test_a_wrong_checkpoint_is_one_line(
    architecture: str, spoil: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny.checkpoint(architecture, tmp_path / "m")
    expected = spoil(folder)
    with pytest.raises(MedbenchError, match=expected) as error:
        tiny.load(architecture, folder)
    assert "\n" not in str(error.value) and not Path("evil").exists()


@pytest.mark.parametrize("architecture", ["open-clip", *(pytest.param(name, marks=pytest.mark.full) for name in ("blip2", "medclip"))])
def test_a_checkpoint_of_the_hubs_cache_loads_offline(architecture: str, tmp_path: Path) -> None:
    """In a process of its own: the client reads its variables once. Every model, in one: test_real_layouts.py."""
    import os
    import subprocess
    import sys

    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "hf/hub/models--owner--name"
    tiny.checkpoint(architecture, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(commit)
    code = (
        "from medbench.models import checkpoint, loading; "
        f"print(type(loading.load(checkpoint.Source({loading.module_name('contrastive', architecture)!r}, 'owner/name'))))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "medbench.models.contrastive" in done.stdout, done.stderr[-2000:]
