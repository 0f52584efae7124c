"""MedCLIP-ViT (MODELS.md, section 4): a Swin tower and a BERT, loaded without the package of that name, which pins an old transformers.

Its checkpoint is a folder with `pytorch_model.bin`, or the address of its zip; the tokenizer lies in the folder, or is a companion.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from medbench.jobs import files
from medbench.models import hub
from medbench.models.checkpoint import PICKLES, SAFETENSORS, Checkpoint, read_json, weight_files
from medbench.models.loading import Contrastive, ImageOutput

TOKENIZER = "emilyalsentzer/Bio_ClinicalBERT"
TOKENIZER_FILES = ("vocab.txt", "config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")
SIDE, CONTEXT = 224, 77
MAX_LOG_SCALE = 4.6052
# transformers 5 names the insides of Swin otherwise than the checkpoint; in this order.
RENAMED = (
    (r"attention\.self\.(query|key|value)", lambda match: f"attention.{match[1][0]}_proj"),
    (r"attention\.self\.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)


class Towers(nn.Module):
    """The modules under the checkpoint's own names."""

    def __init__(self, swin: SwinConfig, bert: BertConfig, size: int = 512) -> None:
        super().__init__()
        self.vision_model, self.text_model = nn.Module(), nn.Module()
        self.vision_model.model, self.text_model.model = SwinModel(swin), BertModel(bert)
        self.vision_model.projection_head = nn.Linear(swin.hidden_size, size, bias=False)
        self.text_model.projection_head = nn.Linear(bert.hidden_size, size, bias=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.vocabulary = bert.vocab_size


class MedClip(Contrastive):
    """Features are the normalised embedding, as in the study."""

    lora_targets = r"model\.encoder\.layers\.\d+\.blocks\.\d+\.(attention\.(q|k|v|o)_proj|mlp\.fc[12])"
    bias = 0.0
    mean, deviation = 0.58628, 0.27950
    image_processor = "medclip: grey, padded to a square, 224"

    def __init__(self, model: Towers, tokenizer: Any) -> None:
        self.model, self._tokenizer = model, tokenizer
        self.scale = float(model.logit_scale.detach().float().clamp(0, MAX_LOG_SCALE).exp())

    @property
    def vision(self) -> nn.Module:
        """Swin with its projection."""
        tower: nn.Module = self.model.vision_model
        return tower

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Grey, in the middle of a black square of at least 224 pixels, then bicubic: a small image is not enlarged (its `pad_img`)."""
        return np.repeat(np.asarray(squared(image, "L", SIDE, Image.Resampling.BICUBIC))[None], 3, axis=0)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """By the published mean and deviation of chest radiographs."""
        return (pixels.float() / 255 - self.mean) / self.deviation

    def encode_images(self, pixels: torch.Tensor) -> ImageOutput:
        """One query: features and embeddings are the same vector."""
        pooled = self.model.vision_model.model(pixel_values=pixels.to(self.model.logit_scale.dtype)).pooler_output
        embedded = normalize(self.model.vision_model.projection_head(pooled).float(), dim=-1)
        return ImageOutput(embedded, embedded[:, None])

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Mean over the hidden states 1, 2 and last and over all tokens. One text at a time: padding would count in the mean."""
        hub.tokens(self._tokenizer, list(texts), CONTEXT, padding=True)  # says which one is too long
        with torch.inference_mode():
            return torch.cat([self._encode(text) for text in texts]).float()

    def _encode(self, text: str) -> torch.Tensor:
        batch = self._tokenizer([text], return_tensors="pt").to(self.device)
        states = self.model.text_model.model(**batch, output_hidden_states=True).hidden_states
        embedded: torch.Tensor = self.model.text_model.projection_head(torch.stack([states[1], states[2], states[-1]]).mean(dim=(0, 2)))
        return embedded

    def checkpoint_gradients(self) -> None:
        """Of the tower that is trained."""
        swin = self.model.vision_model.model
        enable = getattr(swin, "activation_checkpointing_enable", None) or swin.gradient_checkpointing_enable  # the older name
        enable({"use_reentrant": False})


def squared(image: Image.Image, mode: str, least: int, method: Image.Resampling) -> Image.Image:
    """The image in the middle of a black square of at least `least` pixels, resized to the model's side."""
    width, height = image.size
    side = max(least, width, height)
    square = Image.new(mode, (side, side))
    square.paste(image.convert(mode), ((side - width) // 2, (side - height) // 2))
    return square.resize((SIDE, SIDE), method)


def load(checkpoint: Checkpoint, device: torch.device | None = None, dtype: torch.dtype | None = None) -> MedClip:
    """Load from a folder, a hub id or the address of a zip. Raises MedbenchError as `hub` does."""
    path, place = _folder(checkpoint), hub.placement(device, dtype)
    sizes = path / "config.json"  # of smaller models: the published checkpoint has none
    fields = read_json(sizes) if sizes.is_file() else {}
    model = hub.built(lambda: skeleton(fields), sizes, weight_files(path, SAFETENSORS, PICKLES)[:1])
    hub.load_weights(model, path, SAFETENSORS, PICKLES, _renamed)
    model.requires_grad_(False).eval().to(place.device, place.dtype)
    words = path if any((path / name).is_file() for name in hub.VOCABULARIES) else checkpoint.companion(TOKENIZER, path, TOKENIZER_FILES)
    return MedClip(model, hub.load_tokenizer(words, model.vocabulary))


def _folder(checkpoint: Checkpoint) -> Path:
    """The folder of the weights; of an address, what its zip holds, unpacked in the cache: one folder for each address and checksum."""
    address = checkpoint.name
    if "://" not in address:
        return checkpoint.folder(SAFETENSORS, PICKLES)
    from medbench.jobs import archives, fetching

    name = address.rpartition("/")[2]
    checksum = checkpoint.source.checksums.get(name)
    folder = files.cache() / "checkpoints" / hashlib.sha256(f"{address} {checksum}".encode()).hexdigest()[:16]
    archive = folder / name
    if not archives.marker(archive).exists():
        fetching.download(address, archive, checksum and f"sha256:{checksum}", None, f"checkpoint {address}")
    archives.unpack(archive, folder, f"checkpoint {address}")
    weights = sorted(folder.rglob(PICKLES[0]))
    path = weights[0].parent if weights else folder
    checkpoint.found(path)
    return path


def _renamed(name: str) -> str | None:
    """A tensor's name in transformers 5; None for one that is computed."""
    if name.endswith(("position_ids", "relative_position_index")):
        return None
    if name.startswith("vision_model.model.encoder."):
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
    return name


def skeleton(config: dict[str, Any]) -> Towers:
    """The published sizes, but for what `config` says otherwise (`swin`, `bert`: fields of their configurations, `size`)."""
    swin = SwinConfig(**{"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7, **config.get("swin", {})})
    bert = BertConfig(**{"vocab_size": 28996, **config.get("bert", {})})
    return Towers(swin, bert, config.get("size", 512))
