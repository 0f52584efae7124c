"""The mini models: reproducible, in the hub's format, with the text pooled at its end, and blind to every cohort."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, AutoTokenizer

from medbench.demo.minimodels import SPECIALIST, Architecture, pretrain, source_pairs
from medbench.demo.phantoms import KINDS, PROMPTS, cohort

ARCHITECTURES: tuple[Architecture, ...] = ("clip", "siglip")
TINY = {"steps": 3, "batch_size": 8, "pool_size": 60}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mini")
    for architecture in ARCHITECTURES:
        pretrain(architecture, SPECIALIST, folder / architecture, seed=0, **TINY)
    return {architecture: folder / architecture for architecture in ARCHITECTURES}


@pytest.mark.parametrize("architecture", ["clip", pytest.param("siglip", marks=pytest.mark.full)])
def test_equal_arguments_give_equal_bytes(architecture: Architecture, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    torch.rand(1)
    settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    pretrain(architecture, SPECIALIST, tmp_path / "again", seed=0, **TINY)
    pretrain(architecture, SPECIALIST, tmp_path / "other", seed=1, **TINY)
    files = sorted(path.name for path in checkpoints[architecture].iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(files)
    for name in files:
        assert (checkpoints[architecture] / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    weights = [(path / "model.safetensors").read_bytes() for path in (tmp_path / "again", tmp_path / "other")]
    assert weights[0] != weights[1]
    assert settings == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_loads_through_the_auto_classes(architecture: Architecture, checkpoints: dict[str, Path]) -> None:
    folder = checkpoints[architecture]
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    assert model.config.model_type == architecture
    images = [phantom.image for phantom in cohort("radiology", 2, 0)] + [np.zeros((90, 70, 3), np.uint8)]
    pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    assert pixels.shape[1:] == (3, 64, 64)
    again = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        one, two = (m.get_image_features(pixel_values=pixels).pooler_output for m in (model, again))
    assert torch.equal(one, two) and one.std(dim=0).max() > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_text_is_pooled_where_it_ends(architecture: Architecture, checkpoints: dict[str, Path]) -> None:
    folder = checkpoints[architecture]
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    eos = model.config.text_config.eos_token_id
    assert eos == tokenizer.eos_token_id != 2
    texts = [text for kind in KINDS for prompts in PROMPTS[kind] for text in prompts]
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    assert tokens.shape[1] == model.config.text_config.max_position_embeddings
    assert (tokens == eos).any(dim=1).all()
    with torch.no_grad():
        text = model.text_model(input_ids=tokens)
    if architecture == "clip":
        ends = (tokens == eos).int().argmax(dim=1)
        assert torch.equal(text.pooler_output, text.last_hidden_state[torch.arange(len(texts)), ends])
    else:
        assert torch.equal(text.pooler_output, model.text_model.head(text.last_hidden_state[:, -1]))
    assert len(torch.unique(text.pooler_output, dim=0)) == len(set(texts))


@pytest.mark.parametrize("kind", KINDS)
def test_pretraining_shows_no_image_of_a_cohort(kind: str) -> None:
    seen = {pair.image.tobytes() for pair in islice(source_pairs(kind, 0), 30)}
    assert not seen & {phantom.image.tobytes() for phantom in cohort(kind, 15, 0)}


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cardiology"):
        pretrain("clip", ("natural", "cardiology"), tmp_path, seed=0, steps=1, batch_size=2)
    with pytest.raises(ValueError, match="choose from"):
        pretrain("clip", (), tmp_path, seed=0, steps=1, batch_size=2)
