"""Architecture, tokenizer, processor and chat template of the mini LLaVA models, in the hub's format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE, PATCH_SIZE = 64, 8
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
MAX_LENGTH = 512
"""The context in tokens, image included."""
HIDDEN = 96
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, of red, green and blue."""
SPECIALS = ("<pad>", "<s>", "</s>", "<image>")
"""In the order of their ids."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5's, without the markers of assistants' turns. No space after `ASSISTANT:`, so prompts are token prefixes of prompt + answer."""
COMMON = (
    "What is the abnormality in this image? Where is it located? Are there any fractures? Which organ is abnormal?",
    "Was this taken with contrast? How was this image taken? What type of imaging is this? Can you see the heart?",
    "Does the patient have a pleural effusion? chest x-ray, ct scan, mri, brain, abdomen, lungs, liver, kidney, axial, normal",
    "Is there evidence of pneumothorax? right lower lobe, left upper lobe, right side, left hemisphere, bilateral, frontal",
    "Answer with yes or no. Answer with one word. Please describe the picture. The answer is not shown.",
)
"""Common words, so that real questions stay short in tokens."""


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: every text comes back as it was, unknown words in pieces."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        sorted(texts),
        trainers.BpeTrainer(
            vocab_size=1000,
            special_tokens=list(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", SPECIALS.index("<s>"))])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        model_max_length=MAX_LENGTH,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )


def build(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """An untrained model of the mini size.

    At this width the libraries' initial weights are too small to learn from in a few hundred steps: the decoder's deviation is
    about one over the root of its width, image patches start as large as places, and places start as waves, as in the first transformer.
    """
    shape: dict[str, Any] = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**shape, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, projection_dim=HIDDEN),
        text_config=LlamaConfig(
            **shape,
            **tokens,
            vocab_size=len(tokenizer),
            max_position_embeddings=MAX_LENGTH,
            initializer_range=HIDDEN**-0.5,
        ),
        initializer_range=HIDDEN**-0.5,  # type: ignore[call-arg]
        image_token_index=SPECIALS.index("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    embeddings = model.model.vision_tower.embeddings
    with torch.no_grad():
        embeddings.patch_embedding.weight.mul_(5)
        embeddings.position_embedding.weight[1:] = torch.from_numpy(_waves(IMAGE_SIZE // PATCH_SIZE, HIDDEN))
    model.generation_config = GenerationConfig(**tokens)  # type: ignore[no-untyped-call]
    return model


def _waves(side: int, width: int) -> NDArray[np.float32]:
    """[side * side, width] sines and cosines of row and column, centred, amplitude 1."""
    rows, columns = (axis.ravel()[:, None] for axis in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    rates = np.geomspace(1, side, width // 4) * np.pi / side
    waves: NDArray[np.float64] = np.concatenate(
        [np.sin(rows * rates), np.cos(rows * rates), np.sin(columns * rates), np.cos(columns * rates)], axis=1
    )
    centred: NDArray[np.float32] = (waves - waves.mean(axis=0)).astype(np.float32)
    return centred


def image_processor() -> CLIPImageProcessor:
    """CLIP's: shortest edge, centre crop."""
    return CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes [n, 3, 64, 64] -> what the image processor makes of images of this size."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels.float() / 255 - mean) / deviation


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes weights, configuration and processor, as a hub checkpoint holds them."""
    model.save_pretrained(folder)
    LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor(),
        tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
