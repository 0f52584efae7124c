"""Mini CLIP and SigLIP models, pretrained on drawn image-caption pairs and saved in the hub's format.

The classes, the losses' form and the processors are those of the real families, so whatever loads a published
checkpoint loads these. A model knows what its corpus showed it: a generalist saw everyday pictures only, a specialist
also phantoms of some kinds, from a seed stream that no evaluation cohort uses (`phantoms.STREAMS`).
"""

import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.nn.functional import log_softmax, logsigmoid, normalize
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from medbench.demo.hubformat import TEXT_LENGTH, save_processor, train_tokenizer
from medbench.demo.learning import PretrainReport, report, reproducible, train
from medbench.demo.natural import Pair, pairs
from medbench.demo.phantoms import KINDS, captions, cohort

Architecture = Literal["clip", "siglip"]
MiniModel = CLIPModel | SiglipModel

SOURCES: tuple[str, ...] = ("natural", *KINDS)
PATCH_GAIN = 12.0  # of the mini SigLIP's patches at the start; with 1 it did not learn fine signs, with 4 half of them
GENERALIST: tuple[str, ...] = ("natural",)
SPECIALIST: tuple[str, ...] = ("natural", "radiology", "pathology")


class Pool(NamedTuple):
    """The pretraining pairs: pixels uint8 [n, 3, 64, 64], tokens int64 [n, t], the topic's number int64 [n]."""

    pixels: torch.Tensor
    tokens: torch.Tensor
    topics: torch.Tensor


def pretrain(
    architecture: Architecture,
    corpus: Sequence[str],
    folder: Path,
    seed: int,
    steps: int = 1000,
    batch_size: int = 32,
    pool_size: int = 4000,
    learning_rate: float = 1e-3,
) -> PretrainReport:
    """Pretrains a model on `corpus` (any of `SOURCES`) and saves it with its processor in `folder`.

    `pool_size` pairs are drawn once, two of each phantom kind for one everyday pair, and augmented in every batch.
    Equal arguments give byte-equal weights on one machine, whatever the global generators and thread
    settings, which are restored. Raises ValueError for an unknown architecture or source.
    """
    if architecture not in ("clip", "siglip"):
        raise ValueError(f"architecture {architecture!r}: one of clip, siglip")
    if not corpus or not set(corpus) <= set(SOURCES):
        raise ValueError(f"corpus {list(corpus)}: choose from {', '.join(SOURCES)}")
    start = time.perf_counter()
    shares = {source: 1 if source == "natural" else 2 for source in corpus}
    drawn = [
        pair for source, share in shares.items() for pair in islice(source_pairs(source, seed), pool_size * share // sum(shares.values()))
    ]
    tokenizer = train_tokenizer(architecture, vocabulary(seed))
    with reproducible(seed):
        model = build(architecture, tokenizer)
        losses = _train(model, _pool(drawn, tokenizer), seed, steps, batch_size, learning_rate)
    model.save_pretrained(folder)
    save_processor(architecture, tokenizer, folder)
    return report(losses, start)


def vocabulary(seed: int) -> list[str]:
    """Texts that every mini model's tokenizer is trained on, so that all know the same words, as published families do.

    What a model knows of a word's meaning still follows from its pairs: the generalist's have no medical word.
    """
    rng = np.random.default_rng(seed)
    medical = [captions(kind, label, rng) for kind in KINDS for label in (0, 1) for _ in range(250)]
    return [*(pair.caption for pair in islice(source_pairs("natural", seed), 1000)), *medical]


def source_pairs(source: str, seed: int) -> Iterator[Pair]:
    """The endless pairs of one source; phantoms come from the stream `pretrain`, one topic per kind and label."""
    if source == "natural":
        yield from pairs(seed)
    rng = np.random.default_rng((seed, len(source)))
    for phantom in cohort(source, 10**9, seed, stream="pretrain"):
        yield Pair(phantom.image, captions(source, phantom.label, rng), f"{source} {phantom.label}")


def build(architecture: Architecture, tokenizer: PreTrainedTokenizerFast) -> MiniModel:
    """An untrained model of the mini size, its special token ids those of the tokenizer."""
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if architecture == "clip":
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    model = SiglipModel(SiglipConfig(text_config={**text, "projection_size": vision["hidden_size"]}, vision_config=vision))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))  # the published start, but for small batches:
        model.logit_bias.fill_(-2.0)  # pairs begin at the odds they occur with
        # CLIP normalises patches before its encoder, SigLIP does not: at this width they would start fainter than positions
        model.vision_model.embeddings.patch_embedding.weight.mul_(PATCH_GAIN)
    return model


def _pool(drawn: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> Pool:
    pixels = torch.from_numpy(np.stack([pair.image for pair in drawn])).permute(0, 3, 1, 2).contiguous()
    text = tokenizer([pair.caption for pair in drawn], padding="max_length", truncation=True, max_length=TEXT_LENGTH)
    numbers = {topic: number for number, topic in enumerate(dict.fromkeys(pair.topic for pair in drawn))}
    return Pool(pixels, torch.tensor(text["input_ids"]), torch.tensor([numbers[pair.topic] for pair in drawn]))


def _train(model: MiniModel, pool: Pool, seed: int, steps: int, batch_size: int, learning_rate: float) -> list[float]:
    """The losses of the steps."""
    rng = np.random.default_rng((seed, steps))

    def loss() -> torch.Tensor:
        chosen = torch.from_numpy(rng.choice(len(pool.pixels), batch_size, replace=False))
        return contrastive_loss(model, augmented(pool.pixels[chosen], rng), pool.tokens[chosen], pool.topics[chosen])

    model.train()
    losses = train([model], loss, steps, learning_rate)
    model.eval()  # type: ignore[no-untyped-call]
    return losses


def augmented(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Bytes [n, 3, h, w] -> normalised floats, mirrored and shifted as one, contrast and colour varied per image."""
    count = len(pixels)
    if rng.random() < 0.5:
        pixels = pixels.flip(3)
    down, right = rng.integers(-4, 5, 2).tolist()
    shifted = torch.roll(pixels, (down, right), (2, 3)).float() / 127.5 - 1
    contrast = torch.from_numpy(rng.uniform(0.8, 1.25, (count, 1, 1, 1)).astype(np.float32))
    brightness = torch.from_numpy(rng.normal(0, 0.08, (count, 3, 1, 1)).astype(np.float32))
    return shifted * contrast + brightness


def contrastive_loss(model: MiniModel, pixels: torch.Tensor, tokens: torch.Tensor, topics: torch.Tensor) -> torch.Tensor:
    """CLIP's softmax or SigLIP's sigmoid loss; all pairs of one topic count as matches, as in MedCLIP."""
    image = normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    text = normalize(model.get_text_features(input_ids=tokens).pooler_output, dim=-1)
    logits = text @ image.T * model.logit_scale.exp()
    match = (topics[:, None] == topics).float()
    if isinstance(model, SiglipModel):
        return -logsigmoid((2 * match - 1) * (logits + model.logit_bias)).sum() / len(logits)
    target = match / match.sum(dim=1, keepdim=True)
    return -(target * (log_softmax(logits, dim=1) + log_softmax(logits.T, dim=1))).sum() / (2 * len(logits))
