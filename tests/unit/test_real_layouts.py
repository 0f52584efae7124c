"""Each of the study's open models from its real layout, without network: from a folder, and from the hub's cache.

What they compute from the folder is compared with stock classes on the same files, where there are any.
"""

import json
import shutil
import socket
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Blip2ForImageTextRetrieval,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    MistralConfig,
    MistralForCausalLM,
    SiglipModel,
)

from medbench import config
from medbench.config import sources
from medbench.jobs import fetching
from medbench.models import generative_base, loading, shared_prefix
from medbench.models.checkpoint import Source
from medbench.models.generative_base import Generative, Query
from tests.unit import checkpoints, tiny, tiny_generative
from tests.unit.checkpoints.contrastive import CLIP_MEAN, CLIP_STD

ROOT = Path(__file__).parents[2]
REGISTRY = config.from_files([ROOT / "config/config.yaml"], ROOT)
MODELS = REGISTRY.models
CONTRASTIVE = ("clip", "blip-2", "medclip", "pubmedclip", "plip", "biomedclip", "siglip", "medsiglip", *checkpoints.VARIANTS)
GENERATIVE = tuple(name for name in checkpoints.REPOSITORIES if name not in CONTRASTIVE)
TEXTS = ["a dark square", "lit", "a bright white square"]


def architecture(name: str) -> str:
    """By the registry."""
    return MODELS[name.partition(",")[0]].architecture


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client reads its variables once, so they are set where it keeps them; and nobody may call out at all."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def refuse(*given: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(params=["folder", "cache"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def found(name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """The registry's own entry, revision and companions included: its folder, or what lies in the hub's cache.

    Only checksums are left out: tiny weights have others.
    """
    entry = MODELS[name.partition(",")[0]].model_copy(update={"checksums": {}})
    if place == "folder":
        entry = entry.model_copy(update={"checkpoint": str(checkpoints.build(name, tmp_path / "m"))})
        return Source(**sources.source(REGISTRY._replace(models={"m": entry}, digests={}), "m"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))

    def download(address: str, path: Path, *given: Any) -> None:
        assert address == checkpoints.MEDCLIP
        path.parent.mkdir(parents=True)
        checkpoints.medclip_zip(path)

    monkeypatch.setattr(fetching, "download", download)
    assert checkpoints.cached(name, tmp_path / "hub") == entry.checkpoint
    if name in checkpoints.VARIANTS:
        entry = entry.model_copy(update={"revision": checkpoints.VARIANTS[name][0].commit})
    return Source(**sources.source(REGISTRY._replace(models={"m": entry}), "m"))


def checked(model: Any, source: Source, place: str, name: str) -> None:
    """What was loaded is what the registry pins; of what it does not pin, what lay there."""
    main, *seconds = (checkpoints.REPOSITORIES | checkpoints.VARIANTS)[name]
    if place == "folder":
        assert model.weights == {"checkpoint": f"sha256 {source.digest}"}
    elif "://" not in main.name:
        assert model.weights == {"checkpoint": f"commit {main.commit}", **{one.name: f"commit {one.commit}" for one in seconds}}
        assert source.revision in (None, main.commit)


def pictures(n: int = 2) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [tiny.picture(number % 2, rng) for number in range(n)]


# --- images and texts


class Encoded(NamedTuple):
    """Unnormalised embeddings."""

    images: torch.Tensor
    texts: torch.Tensor


def pixels(side: int, mean: list[float], std: list[float], crop: bool) -> torch.Tensor:
    """By hand: the middle square of the shortest edge resized, or all of it squashed; bicubic; scaled."""
    rows = []
    for image in pictures():
        short = min(image.size)
        size = (side * image.width // short, side * image.height // short) if crop else (side, side)
        resized = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        rows.append(np.asarray(resized.crop((left, top, left + side, top + side)), dtype=np.float32) / 255)
    return torch.from_numpy((np.stack(rows) - np.float32(mean)) / np.float32(std)).permute(0, 3, 1, 2)


def stock_clip(folder: Path) -> Encoded:
    """The text at its true end, although the configuration names another token."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert ids[0, -1] == tokenizer.convert_tokens_to_ids("<|endoftext|>") == len(tokenizer) - 1
        rows.append(model.text_projection(model.text_model(ids).last_hidden_state[:, -1]))
    return Encoded(model.get_image_features(pixels(64, CLIP_MEAN, CLIP_STD, True)).pooler_output, torch.cat(rows))


def stock_siglip(folder: Path) -> Encoded:
    """With the tokenizer's own 64 places."""
    model, tokenizer = SiglipModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXTS, padding="max_length", return_tensors="pt")["input_ids"]
    assert ids.shape[1] == 64 and ids[0, -1] == 1
    side = model.config.vision_config.image_size
    images = model.get_image_features(pixels(side, [0.5] * 3, [0.5] * 3, False)).pooler_output
    return Encoded(images, model.get_text_features(ids).pooler_output)


def stock_blip2(folder: Path) -> Encoded:
    """Embeddings of all queries; the text's by the class's own ITC."""
    model, tokenizer = Blip2ForImageTextRetrieval.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    model.config.image_token_index = None
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    out = model(pixels(64, CLIP_MEAN, CLIP_STD, False), **batch, use_image_text_matching_head=False)
    return Encoded(out.image_embeds, out.text_embeds)


def stock_open_clip(folder: Path) -> Encoded:
    """By open_clip's own factory, on a copy that names the text tower's configuration where it lies."""
    copy = Path(shutil.copytree(folder, folder.parent / "stock"))
    settings = json.loads((copy / "open_clip_config.json").read_text())
    text = settings["model_cfg"]["text_cfg"]
    text |= {"hf_model_name": str(folder / text["hf_model_name"])}
    (copy / "open_clip_config.json").write_text(json.dumps(settings))
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{copy}")
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS, padding="max_length", max_length=text["context_length"], return_tensors="pt")
    images = model.eval().encode_image(torch.stack([preprocess(image) for image in pictures()]))
    return Encoded(images, model.encode_text(ids["input_ids"]))


STOCK = {"clip": stock_clip, "siglip": stock_siglip, "blip2": stock_blip2, "open-clip": stock_open_clip}


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_images_and_texts_are_encoded(name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = found(name, place, tmp_path, monkeypatch)
    model: loading.Contrastive = loading.load(source)
    checked(model, source, place, name)
    with torch.inference_mode():
        images = model.encode_images(model.to_device(np.stack([model.pixels(image) for image in pictures()])))
        texts = model.encode_texts(TEXTS)
    assert bool(images.features.isfinite().all()) and bool(texts.isfinite().all())
    assert not torch.allclose(images.features[0], images.features[1]) and not torch.allclose(texts[0], texts[1])
    if place == "folder" and (stock := STOCK.get(architecture(name))):
        folder = checkpoints.build(name, tmp_path / "other")
        with torch.inference_mode():
            expected = stock(folder)
        normal = nn.functional.normalize
        expected_images = expected.images if expected.images.ndim == 3 else expected.images[:, None]
        torch.testing.assert_close(normal(images.embeddings, dim=-1), normal(expected_images, dim=-1), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(normal(texts, dim=-1), normal(expected.texts, dim=-1), atol=1e-4, rtol=1e-3)


# --- questions


def query() -> Query:
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    return Query("sample", Image.fromarray(pixels), "Is the heart enlarged?")


def stock_chat(folder: Path, asked: Query) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the prompt, and logits of what follows: transformers alone, in one step from the conversation."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    content = [{"type": "image", "image": asked.image}, {"type": "text", "text": asked.text}]
    batch = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        return batch["input_ids"][0], model(**batch).logits[0, -1]


def stock_llava_med(folder: Path, model: Generative, asked: Query) -> torch.Tensor:
    """Logits of what follows: CLIP and Mistral from the same shards, the projector by hand."""
    raw = {name: value.float() for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
    fields = json.loads((folder / "config.json").read_text())
    fields = {name: value for name, value in fields.items() if not name.startswith(("mm_", "model_type", "torch_dtype"))}
    decoder = MistralForCausalLM(MistralConfig(**fields)).eval()
    decoder.load_state_dict({name: raw[name] for name in decoder.state_dict()})
    of_tower = json.loads((folder / "openai/clip-vit-large-patch14-336/config.json").read_text())["vision_config"]
    tower = CLIPVisionModel(CLIPVisionConfig(**of_tower)).eval()
    tower.load_state_dict({name: raw[f"model.vision_tower.vision_tower.vision_model.{name}"] for name in tower.state_dict()})
    inputs = model.inputs([asked], 1)
    with torch.inference_mode():
        patches = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][0, 1:]
        hidden = nn.functional.gelu(patches @ raw["model.mm_projector.0.weight"].T + raw["model.mm_projector.0.bias"])
        hidden = hidden @ raw["model.mm_projector.2.weight"].T + raw["model.mm_projector.2.bias"]
        ids = inputs["input_ids"][0]
        places = ids == model.image_token_id
        words = decoder.model.embed_tokens(ids.masked_fill(places, 0))
        words[places] = hidden
        logits: torch.Tensor = decoder(inputs_embeds=words[None]).logits[0, -1]
    return logits


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_question_is_answered_and_learned(name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = architecture(name)
    source = found(name, place, tmp_path, monkeypatch)
    model: Generative = generative_base.load(source._replace(processor={}))  # as the stock classes below see images
    checked(model, source, place, name)
    asked = query()
    [answer] = model.generate(model.inputs([asked], 4), 4)
    assert 0 < answer.n_tokens <= 4
    both = [asked, asked._replace(text=f"{asked.text} And where is it?")]
    put = shared_prefix.prompts(model, both, 4)
    assert isinstance(put, shared_prefix.Begun) and len(put.shared["input_ids"]) == 1
    assert shared_prefix.answers(model, put, 4) == [answer, *model.generate(model.inputs(both[1:], 4), 4)]
    assert model.tokenizer.convert_tokens_to_ids(model.tokenizer.eos_token) in model.ends
    batch = model.train_batch([asked], ["yes, it is"])
    with torch.inference_mode():
        loss = model.model(**model.placed(batch)).loss
        logits = model.model(**model.placed(model.inputs([asked], 1))).logits[0, -1]
    assert 0 < float(loss) < 100 and bool(logits.isfinite().all())
    if place == "cache":
        return
    folder = checkpoints.build(name, tmp_path / "other")
    if family == "llava-med":
        expected = stock_llava_med(folder, model, asked)
        torch.testing.assert_close(logits[: len(expected)], expected, atol=1e-4, rtol=1e-3)
    elif not family.startswith("vila"):  # see test_vila_is_its_parts
        ids, expected = stock_chat(folder, asked)
        assert model.inputs([asked], 1)["input_ids"][0].tolist() == ids.tolist()
        torch.testing.assert_close(logits, expected, atol=2e-2, rtol=1e-2)  # the stock processor may be a grey level off


@pytest.mark.parametrize("name", GENERATIVE)
def test_the_output_matrix_is_the_one_on_disk(name: str, tmp_path: Path) -> None:
    """Tied to the input's only where there is none: what newer versions do by default differs from configuration to configuration."""
    folder = checkpoints.build(name, tmp_path / "m")
    parts = [folder / "llm"] if (folder / "llm").exists() else [folder]
    raw = {tensor: value for part in parts for file in part.glob("*.safetensors") for tensor, value in load_file(file).items()}
    model = tiny_generative.load(architecture(name), folder).model
    words = next(value for tensor, value in raw.items() if tensor.endswith("embed_tokens.weight"))
    head = next((value for tensor, value in raw.items() if tensor.endswith("lm_head.weight")), None)
    assert torch.equal(model.get_input_embeddings().weight[: len(words)], words.float())
    assert torch.equal(model.lm_head.weight[: len(words)], (words if head is None else head).float())
    assert (head is None) == (architecture(name) == "gemma3") and (head is None or not torch.equal(head, words))


def test_the_forms_of_qwens_configuration_mean_the_same(tmp_path: Path) -> None:
    """Flat as Qwen's own is, nested and flat as newer versions save it: places in an image have three coordinates."""
    loaded = [tiny_generative.load("qwen2-5-vl", checkpoints.build(name, tmp_path / name)) for name in ("qwen2.5-vl", "lingshu")]
    for model in loaded:
        assert model.model.config.get_text_config().rope_parameters["mrope_section"] == [1, 1, 2]
        assert model.model.config.get_text_config().rope_parameters["rope_theta"] == 1_000_000.0


# --- the layouts themselves


def test_the_cache_is_as_the_hubs_client_keeps_it(tmp_path: Path) -> None:
    for name in checkpoints.REPOSITORIES:
        checkpoints.cached(name, tmp_path)
    scanned = huggingface_hub.scan_cache_dir(tmp_path)
    assert not scanned.warnings
    commits = {repo.repo_id: next(iter(repo.revisions)) for repo in scanned.repos}
    expected = {one.name: one.commit for all_of_it in checkpoints.REPOSITORIES.values() for one in all_of_it if "://" not in one.name}
    assert {name: commit.commit_hash for name, commit in commits.items()} == expected and checkpoints.COMPANIONS.items() <= expected.items()
    assert all(revision.refs == {"main"} for revision in commits.values())


def test_files_are_those_of_the_real_ones(tmp_path: Path) -> None:
    """Where the kind of a file decides what is read."""
    files = {}
    for name in checkpoints.REPOSITORIES:
        folder = checkpoints.build(name, tmp_path / name)
        files[name] = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in ("clip", "pubmedclip", "plip"):
        assert "pytorch_model.bin" in files[name] and not [file for file in files[name] if file.endswith(".safetensors")]
    assert len(files["blip-2"]) == 10 and {"model.safetensors", "pytorch_model.bin"} <= files["blip-2"]
    assert "spiece.model" in files["siglip"] and "tokenizer.json" not in files["siglip"]
    assert "tokenizer.model" in files["llava-med"] and "tokenizer.json" not in files["llava-med"]
    assert "preprocessor_config.json" not in files["llava-med"]
    shards = {name: len([file for file in files[name] if "-of-" in file]) for name in GENERATIVE}
    assert shards == {
        "llava-1.5": 3, "llava-med": 4, "qwen2-vl": 5, "qwen2.5-vl": 5, "lingshu": 4, "gemma-3": 2, "medgemma": 2, "vila-1.5": 4,
        "vila-1.5-may-2024": 4, "vila-m3": 4, "internvl3": 4, "qwen3-vl": 4,
    }  # fmt: skip
    assert {"llm/tokenizer.json", "mm_projector/model.safetensors", "vision_tower/preprocessor_config.json"} <= files["vila-1.5"]


def test_names_of_tensors_are_those_on_disk(tmp_path: Path) -> None:
    starts = {
        "llava-1.5": {"language_model.model", "language_model.lm_head", "multi_modal_projector.linear_1", "multi_modal_projector.linear_2"}
        | {"vision_tower.vision_model"},
        "qwen2-vl": {"lm_head.weight", "model.embed_tokens", "model.layers", "model.norm", "visual.blocks", "visual.merger"}
        | {"visual.patch_embed"},
        "gemma-3": {"language_model.model", "multi_modal_projector.mm_input_projection_weight", "multi_modal_projector.mm_soft_emb_norm"}
        | {"vision_tower.vision_model"},
        "llava-med": {"lm_head.weight", "model.embed_tokens", "model.layers", "model.mm_projector", "model.norm", "model.vision_tower"},
    }  # fmt: skip
    starts["internvl3"] = {"language_model.model", "language_model.lm_head", "vision_tower.embeddings", "vision_tower.encoder"}
    starts["internvl3"] |= {f"multi_modal_projector.{part}" for part in ("layer_norm", "linear_1", "linear_2")}
    starts["qwen3-vl"] = {"lm_head.weight", "model.language_model", "model.visual"}
    for name, expected in starts.items():
        index = json.loads((checkpoints.build(name, tmp_path / name) / "model.safetensors.index.json").read_text())
        assert {".".join(tensor.split(".")[:2]) for tensor in index["weight_map"]} == expected
    for name, file in (("clip", "pytorch_model.bin"), ("medclip", "pytorch_model.bin"), ("biomedclip", "open_clip_pytorch_model.bin")):
        tensors = torch.load(checkpoints.build(name, tmp_path / name) / file, weights_only=True)
        buffers = sorted({tensor.rpartition(".")[2] for tensor in tensors} & {"position_ids", "relative_position_index"})
        assert buffers == (["position_ids", "relative_position_index"] if name == "medclip" else ["position_ids"])
