"""Contrastive models and the pixel baseline: what they compute, what they refuse."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.nn.functional import cosine_similarity
from transformers import AutoProcessor, CLIPConfig, CLIPModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from medbench.errors import MedbenchError
from medbench.jobs import network
from medbench.jobs.microbatching import Microbatching
from medbench.models import hub, loading
from medbench.models.baseline import raw_pixels
from medbench.models.checkpoint import Checkpoint, Source
from medbench.models.loading import Batch
from medbench.models.prefetch import AHEAD, prefetch_pixels
from tests.unit import tiny

SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
TEXTS = ["a dark square", "lit"]


@pytest.fixture(scope="module", params=tiny.HUB)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(architecture, tmp_path_factory.mktemp(architecture) / "model")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [tiny.picture(label, rng) for label in (0, 1, 1)]


def pixels_of(model: Any, images: list[Image.Image]) -> torch.Tensor:
    return torch.as_tensor(model.to_device(np.stack([model.pixels(image) for image in images])))


def test_logits_equal_the_stock_models(architecture: str, folder: Path, images: list[Image.Image]) -> None:
    model, processor = tiny.load(architecture, folder), AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    padding: Any = True if architecture == "clip" else "max_length"
    batch = processor(images=images, text=TEXTS, padding=padding, return_tensors="pt")
    stock: Any = (CLIPModel if architecture == "clip" else SiglipModel).from_pretrained(folder)
    with torch.inference_mode():
        expected = stock.eval()(**batch).logits_per_image
        ours = model.encode_images(pixels_of(model, images)).embeddings
    found = model.scale * cosine_similarity(ours, model.encode_texts(TEXTS)[None], dim=-1) + model.bias
    # one grey level may differ: the stock processor uses its torchvision backend
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_pixels_then_normalise_equal_the_image_processor(architecture: str, folder: Path, images: list[Image.Image]) -> None:
    model = tiny.load(architecture, folder)
    whole = hub.HubPixels(folder).processor(images=images, return_tensors="pt")["pixel_values"]
    assert model.pixels(images[0]).dtype == np.uint8
    torch.testing.assert_close(pixels_of(model, images), whole, atol=1e-6, rtol=0)
    assert model.image_processor.endswith("Pil")


def test_a_cpu_takes_parts_of_equal_size(
    architecture: str, folder: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.load(architecture, folder)
    pixels = np.stack([model.pixels(images[place % len(images)]) for place in range(10)])
    _, _, height, width = pixels.shape
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for limit, expected in ((10, [10]), (4, [4, 3, 3]), (0, [1] * 10)):
        monkeypatch.setattr(loading, "CACHED", limit * height * width / 2)
        parts = model.pieces(pixels)
        assert [len(part) for part in parts] == expected
        np.testing.assert_array_equal(np.concatenate(parts), pixels)
        [(_, vectors)] = model.vectors([Batch([*"abcdefghij"], [True] * 10, pixels)], Microbatching())
        assert vectors.features.shape[0] == 10 and np.isfinite(vectors.features).all()
        np.testing.assert_allclose(vectors.features[:3], vectors.features[3:6], atol=1e-6)


def test_features_are_the_published_ones(architecture: str, folder: Path, images: list[Image.Image]) -> None:
    model = tiny.load(architecture, folder)
    pixels = pixels_of(model, images)
    with torch.inference_mode():
        output = model.encode_images(pixels)
        pooled = model.model.vision_model(pixels).pooler_output
        expected = model.model.visual_projection(pooled) if architecture == "clip" else pooled
    assert output.embeddings.shape == (3, 1, expected.shape[1])
    torch.testing.assert_close(output.features, expected)


def test_siglip_2_reads_lower_case_whatever_its_tokenizer(tmp_path: Path) -> None:
    """Its checkpoints come with Gemma's tokenizer, which keeps capitals (big_vision, issue 187)."""
    model = tiny.load("siglip", tiny.checkpoint("siglip", tmp_path / "model"))
    words = Tokenizer(WordLevel({"a": 0, "CT": 1, "ct": 2, "[UNK]": 3, "[PAD]": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    model._tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")  # type: ignore[attr-defined]
    assert torch.equal(model.encode_texts(["a CT"]), model.encode_texts(["a ct"]))
    assert not torch.equal(model.encode_texts(["a ct"]), model.encode_texts(["a a"]))


def test_siglip_reads_texts_padded_to_full_length(tmp_path: Path) -> None:
    model = tiny.load("siglip", tiny.checkpoint("siglip", tmp_path / "model"))
    ids = hub.load_tokenizer(tmp_path / "model")(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        short = model.model.get_text_features(input_ids=ids).pooler_output
    assert not torch.allclose(model.encode_texts(TEXTS), short, atol=1e-3)
    torch.testing.assert_close(model.encode_texts(TEXTS)[:1], model.encode_texts(TEXTS[:1]))


def test_a_prompt_longer_than_the_model_reads_is_an_error(architecture: str, folder: Path) -> None:
    model = tiny.load(architecture, folder)
    length = model.model.config.text_config.max_position_embeddings
    with pytest.raises(MedbenchError, match=f"the model reads {length}; shorten it"):
        model.encode_texts([TEXTS[0], "square " * length])


def test_gradients_pass_through_encode_images(architecture: str, folder: Path, images: list[Image.Image]) -> None:
    model = tiny.load(architecture, folder)
    assert not any(value.requires_grad for value in model.model.parameters())
    pixels = pixels_of(model, images).requires_grad_()
    model.encode_images(pixels).features.sum().backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None and bool(pixels.grad.any())


def test_vectors_come_in_order_with_their_batches(architecture: str, folder: Path, images: list[Image.Image]) -> None:
    model = tiny.load(architecture, folder)
    batches = [Batch([str(i)], [True], model.pixels(image)[None]) for i, image in enumerate(images)]
    found = list(model.vectors(batches, Microbatching()))
    assert [batch.image_ids for batch, _ in found] == [["0"], ["1"], ["2"]]
    for (_, vectors), image in zip(found, images, strict=True):
        with torch.inference_mode():
            expected = model.encode_images(pixels_of(model, [image]))
        np.testing.assert_array_equal(vectors.features, expected.features.numpy())


def test_lora_targets_name_the_linear_layers_of_every_block(architecture: str, folder: Path) -> None:
    model = tiny.load(architecture, folder)
    names = [name for name, _ in model.vision.named_modules() if re.fullmatch(model.lora_targets, name)]
    assert len(names) == model.model.config.vision_config.num_hidden_layers * (6 if architecture == "clip" else 3)


@pytest.mark.parametrize(
    ("config", "model_class", "expected"),
    [
        (CLIPConfig(), CLIPModel, 151_277_313),
        (SiglipConfig(), SiglipModel, 203_155_970),
        (
            SiglipConfig(vision_config=SO400M | {"image_size": 448, "patch_size": 14}, text_config=SO400M | {"projection_size": 1152}),
            SiglipModel,
            878_300_338,
        ),
    ],
    ids=["clip", "siglip", "medsiglip"],
)
def test_published_parameter_counts(config: Any, model_class: Any, expected: int) -> None:
    with torch.device("meta"):
        assert sum(value.numel() for value in model_class(config).parameters()) == expected


# --- what is refused


def refused(architecture: str, folder: Path | str, match: str) -> None:
    with pytest.raises(MedbenchError, match=match):
        tiny.load(architecture, Path(folder))


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    refused("clip", tmp_path / "none", "folder does not exist")


def test_a_folder_without_weights(architecture: str, copy: Path) -> None:
    tiny.weights(copy)[0].unlink()
    refused(architecture, copy, "holds no weights")


def test_another_architecture(architecture: str, copy: Path) -> None:
    other = "siglip" if architecture == "clip" else "clip"
    refused(other, copy, f"a checkpoint of '{architecture}', not of '{other}'")


def test_a_missing_tensor_is_not_drawn_at_random(architecture: str, copy: Path) -> None:
    tensors = tiny.tensors(copy)
    del tensors["vision_model.embeddings.patch_embedding.weight"]
    tiny.replace(copy, tensors)
    refused(architecture, copy, "1 tensors are missing.*patch_embedding")


def test_a_tensor_of_another_shape(architecture: str, copy: Path) -> None:
    tiny.replace(copy, {**tiny.tensors(copy), "logit_scale": torch.zeros(3)})
    refused(architecture, copy, "cannot be read|another shape")


def test_a_truncated_file(architecture: str, copy: Path) -> None:
    os.truncate(tiny.weights(copy)[0], 20_000)
    refused(architecture, copy, "has 20000 bytes, its header promises|cannot be read")


WORDS = ("tokenizer.json", "vocab.json", "merges.txt", "spiece.model")


@pytest.mark.parametrize("names", [WORDS, ("preprocessor_config.json",), ("config.json",)])
def test_missing_side_files(architecture: str, copy: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (copy / name).unlink(missing_ok=True)
    refused(architecture, copy, "holds no (usable|readable|tokenizer)")


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_pickled_code_is_not_run_but_plain_pickled_weights_load(architecture: str, copy: Path, tmp_path: Path) -> None:
    expected = tiny.load(architecture, copy).encode_texts(TEXTS)
    tensors = tiny.tensors(copy)
    tiny.weights(copy)[0].unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    torch.testing.assert_close(tiny.load(architecture, copy).encode_texts(TEXTS), expected)
    marker = tmp_path / "ran"
    torch.save({**tensors, "bomb": _Bomb(marker)}, copy / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(MedbenchError, match=r"cannot be read safely.*it would run \w+") as error:
        tiny.load(architecture, copy)
    assert not marker.exists() and "weights_only" not in str(error.value), "torch's advice is to run it"


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (GatedRepoError, "is gated and access was refused; accept its licence"),
        (RevisionNotFoundError, "has no revision 'v9'"),
        (RepositoryNotFoundError, "is not on the hub"),
        (LocalEntryNotFoundError, "not in the local cache"),
    ],
)
def test_the_hubs_refusals(monkeypatch: pytest.MonkeyPatch, error: type[Exception], match: str) -> None:
    def refuse(*args: Any, **kwargs: Any) -> str:
        raise error.__new__(error)  # without the response that its __init__ asks for

    monkeypatch.setattr(network, "snapshot_download", refuse)
    with pytest.raises(MedbenchError, match=match):
        Checkpoint(Source("m", "owner/name", "v9")).folder()


def test_a_hub_checkpoint_without_safetensors_falls_back_to_its_pickle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def download(checkpoint: str, allow_patterns: list[str], **rest: object) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(network, "snapshot_download", download)
    checkpoint = Checkpoint(Source("m", "owner/name"))
    assert checkpoint.folder() == tmp_path
    assert "*.safetensors" in asked[0] and "pytorch_model*.bin" in asked[1]
    (tmp_path / "model.safetensors").touch()
    checkpoint.folder()
    assert len(asked) == 3


# --- the pixel baseline


def test_raw_pixels_are_block_means_from_0_to_1() -> None:
    model = raw_pixels.load()
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:2, :2, 0] = 255, 255
    image[2:4, :2, 1] = 204
    pixels = model.pixels(Image.fromarray(image))
    [(_, vectors)] = model.vectors([Batch(["a"], [True], pixels[None])], Microbatching())
    assert vectors.embeddings is None and vectors.features.shape == (1, 768) and vectors.features.dtype == np.float32
    assert vectors.features[0, 0] == 1.0 and vectors.features[0, 16 * 3 + 1] == pytest.approx(0.8)
    assert vectors.features.sum() == pytest.approx(1.8)


# --- decoding ahead


class _Row:
    def __init__(self, name: str) -> None:
        self.image_id, self.image, self.evaluated = name, name.encode(), True


def test_feed_keeps_the_order_and_reads_only_a_few_batches_ahead() -> None:
    taken = 0

    def rows() -> Any:
        nonlocal taken
        for start in range(0, 40, 4):
            taken += 1
            yield [_Row(str(start + i)) for i in range(4)]

    for done, batch in enumerate(prefetch_pixels(rows(), lambda data: np.array([int(data)], dtype=np.uint8), workers=3)):
        assert taken <= done + AHEAD
        assert batch.image_ids == [str(4 * done + i) for i in range(4)]
        assert batch.pixels.ravel().tolist() == [4 * done + i for i in range(4)]
    assert done == 9


def test_feed_names_an_image_that_cannot_be_decoded() -> None:
    with pytest.raises(MedbenchError, match=r"image broken.*cannot be decoded"):
        list(prefetch_pixels([[_Row("1"), _Row("broken")]], lambda data: np.array([int(data)], dtype=np.uint8), workers=1))


def test_models_adaptation_and_metrics_need_no_table_library() -> None:
    """A GPU machine may have torch, transformers and peft, but neither polars, pyarrow, open_clip nor Snakemake."""
    code = (
        "import importlib, pkgutil, sys\n"
        "for name in ('polars', 'pyarrow', 'open_clip', 'snakemake'): sys.modules[name] = None\n"
        "for package in ('models', 'adapt', 'metrics'):\n"
        "    root = importlib.import_module(f'medbench.{package}')\n"
        "    for found in pkgutil.walk_packages(root.__path__, f'{root.__name__}.'):\n"
        "        if '.evaluate_modules.' not in found.name and not found.name.endswith('.open_clip'): importlib.import_module(found.name)\n"
        "print('imported')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.strip() == "imported", done.stderr
