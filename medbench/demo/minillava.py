"""Mini LLaVA models, pretrained on drawn pictures with questions and answers and saved in the hub's format.

The class, the processor and the chat template are LLaVA-1.5's, so whatever loads a published checkpoint loads these. As
LLaVA's own instruction data, a training text is a dialogue of several questions about one picture. A model knows what its
corpus showed it: a generalist everyday scenes only, a specialist also phantoms of some kinds, from a seed stream that no
evaluation cohort uses.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from medbench.demo import questions, scenes
from medbench.demo.questions import Topic, ask

SOURCES: tuple[str, ...] = ("natural", *questions.KINDS)
IMAGE_SIZE, PATCH_SIZE = 64, 8
MAX_LENGTH = 512
PF = (0.6, 0.15, 0.25)
SPECIALS = ("<pad>", "<s>", "</s>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


class Shown(NamedTuple):
    """A picture, uint8 [64, 64, 3], what there is to ask about it, and the facts."""

    image: questions.Image
    topics: dict[str, Topic]
    facts: dict[str, str]


def shown(source: str, seed: int, index: int) -> Shown:
    if source == "natural":
        image, facts = scenes.scene(np.random.default_rng(np.random.SeedSequence((seed, index), spawn_key=(2,))))
        return Shown(image, {name: scenes.TOPICS[name] for name in facts}, facts)
    facts = questions.facts_of(source, index, seed, "pretrain")
    return Shown(questions.picture(source, facts, index, 0, seed, "pretrain"), questions.TOPICS[source], facts)


def dialogue(picture: Shown, rng, turns: int) -> list[tuple[str, str]]:
    names = list(picture.topics)
    out = []
    order = [str(n) for _ in range(1 + turns // len(names)) for n in rng.permutation(names)][:turns]
    for name in order:
        form = str(rng.choice(("check", "choose", "name"), p=PF))
        a = ask(picture.topics[name], picture.facts[name], form, rng, bool(rng.random() < 0.5))
        out.append((a.question, a.answer))
    return out


def texts() -> list[str]:
    out = ["USER: ", "ASSISTANT:", "Answer yes or no."]
    for topic in [t for table in (*questions.TOPICS.values(), scenes.TOPICS) for t in table.values()]:
        for option in topic.options:
            out += [" " + option] * 3
            out += [w.format(option) for w in topic.check] + [w.format(option, option) for w in topic.choose] + list(topic.name)
    return out


def train_tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts(),
        trainers.BpeTrainer(vocab_size=800, special_tokens=list(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=MAX_LENGTH, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )


def build(tokenizer, h=96, vl=2, dl=2, heads=4, ir=0.02) -> LlavaForConditionalGeneration:
    vision = CLIPVisionConfig(hidden_size=h, intermediate_size=2 * h, num_hidden_layers=vl, num_attention_heads=heads, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, projection_dim=64)
    text = LlamaConfig(vocab_size=len(tokenizer), hidden_size=h, intermediate_size=2 * h, num_hidden_layers=dl, num_attention_heads=heads, max_position_embeddings=MAX_LENGTH, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=ir)
    cfg = LlavaConfig(initializer_range=ir, vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1, vision_feature_select_strategy="default")
    return LlavaForConditionalGeneration(cfg)
