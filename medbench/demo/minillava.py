"""Mini LLaVA models, pretrained on drawn pictures with questions and answers and saved in the hub's format.

The class, the processor and the chat template are LLaVA-1.5's, so whatever loads a published checkpoint loads these. They
are also made as LLaVA is: the decoder first learns language, here answering questions about described pictures; then the
vision tower and the projector are aligned with the decoder's words; then all parts learn from dialogues about pictures. All models
read about everything, so all can speak of a radiograph; but a generalist *saw* everyday scenes only, and a specialist also
phantoms of some kinds, from a seed stream that no evaluation cohort uses.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from medbench.demo import llavaformat, questions, scenes
from medbench.demo.canvas import Image, Rng
from medbench.demo.learning import PretrainReport, report, reproducible, train
from medbench.demo.questions import Topic

SOURCES: tuple[str, ...] = ("natural", *questions.KINDS)
TOPICS: dict[str, dict[str, Topic]] = {"natural": scenes.TOPICS, **questions.TOPICS}
SHARES = (0.38, 0.28, 0.34)
"""Of all steps: language, alignment, dialogues."""
REHEARSAL = 3
"""Every third batch of the last stage is one of the first, so that language is not forgotten; LLaVA-1.5 mixes text in, too."""
INSTRUCTION, INSTRUCTED = " Answer yes or no.", 0.9
"""How often a yes/no question carries an instruction."""
TURNS, DESCRIBED = 4, 3
"""Questions in a dialogue about a picture, and facts that a told picture has; about those a dialogue has one question."""
TOLD_BATCH = 2.5
"""Told pictures in a batch, in units of pictures in one."""
FORMS = {"check": 0.6, "choose": 0.15, "name": 0.25}
"""How often each form of question is asked; a yes/no question is the hardest to learn."""
TOLD, NOISE, SHARPNESS = 6, 0.2, 10.0
"""Vectors that tell a picture, their noise in units of a word's deviation, and how much a resemblance counts in the alignment."""
IGNORED = -100


class Shown(NamedTuple):
    """A picture, uint8 [64, 64, 3], its source and its facts."""

    image: Image
    source: str
    facts: dict[str, str]


class Rows(NamedTuple):
    """A padded batch: token ids and attention mask [n, t], labels [n, t] with `IGNORED` outside the answers."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


def pretrain(
    architecture: str,
    corpus: Sequence[str],
    folder: Path,
    seed: int,
    steps: int = 600,
    batch_size: int = 32,
    pool_size: int = 3000,
    learning_rate: float = 3e-3,
) -> PretrainReport:
    """Pretrains a model that saw `corpus` (any of `SOURCES`, in equal shares) and saves it with its processor in `folder`.

    Equal arguments give byte-equal weights on one machine, whatever the global generators and thread settings, which are
    restored. The report's losses are those of the dialogues. Raises ValueError for an unknown architecture or source.
    """
    if architecture != "llava":
        raise ValueError(f"architecture {architecture!r}: only llava is made here")
    if not corpus or not set(corpus) <= set(SOURCES):
        raise ValueError(f"corpus {list(corpus)}: choose from {', '.join(SOURCES)}")
    start = time.perf_counter()
    pool = [shown(source, seed, index) for source in corpus for index in range(pool_size // len(corpus))]
    tokenizer = llavaformat.train_tokenizer(texts())
    with reproducible(seed):
        model = llavaformat.build(tokenizer)
        losses = _Lessons(model, tokenizer, pool, seed, batch_size, learning_rate).all(steps)
    llavaformat.save(model, tokenizer, folder)
    return report(losses, start)._replace(steps=steps)


def shown(source: str, seed: int, index: int) -> Shown:
    """Picture number `index` of a source; phantoms come from the stream `pretrain`."""
    if source == "natural":
        image, facts = scenes.scene(np.random.default_rng(np.random.SeedSequence((seed, index), spawn_key=(2,))))
        return Shown(image, source, facts)
    facts = questions.facts_of(source, index, seed, "pretrain")
    return Shown(questions.picture(source, facts, index, 0, seed, "pretrain"), source, facts)


def texts() -> list[str]:
    """All that is ever asked and answered."""
    lines = ["USER: ", "ASSISTANT: yes", "ASSISTANT: no", *llavaformat.COMMON]
    for topic in (topic for table in TOPICS.values() for topic in table.values()):
        for option in topic.options:
            lines += [f" {option}", *(wording.format(option) for wording in topic.check)]
            lines += [wording.format(option, option) for wording in topic.choose] + list(topic.name)
    return lines


class _Lessons:
    """The three stages of one pretraining."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        pool: list[Shown],
        seed: int,
        size: int,
        rate: float,
    ) -> None:
        self.model: Any = model
        self.tokenizer, self.pool, self.size, self.rate = tokenizer, pool, size, rate
        self.rng = np.random.default_rng((seed, len(pool)))
        self.pixels = torch.from_numpy(np.stack([picture.image for picture in pool])).permute(0, 3, 1, 2).contiguous()
        self.known: dict[str, list[int]] = {}
        self.lesson = 0

    def all(self, steps: int) -> list[float]:
        """The losses of the dialogues."""
        language, alignment, dialogues = (max(1, round(share * steps)) for share in SHARES)
        inner = self.model.model
        self.model.train()
        train([inner.language_model, self.model.lm_head], self._language, language, self.rate)
        train([inner.vision_tower, inner.multi_modal_projector], self._alignment, alignment, self.rate)
        losses = train([self.model], self._dialogues, dialogues, self.rate)
        self.model.eval()
        return losses

    def _language(self) -> torch.Tensor:
        """Dialogues about told pictures of every source: vectors in place of image tokens, each the sum of some facts' words and noise."""
        rows, told = [], []
        words = self.model.get_input_embeddings().weight
        for source in self.rng.choice(SOURCES, round(TOLD_BATCH * self.size)):
            facts = {name: str(self.rng.choice(topic.options)) for name, topic in TOPICS[source].items()}
            facts = {name: facts[name] for name in self.rng.permutation(list(facts))[:DESCRIBED]}
            places = torch.from_numpy(self.rng.integers(TOLD, size=len(facts)))
            rows.append(self._dialogue([self.model.config.image_token_id] * TOLD, source, facts, 1))
            told.append(
                torch.zeros(TOLD, words.shape[1]).index_add(0, places, words[[self._ids(f" {word}")[0] for word in facts.values()]])
            )
        ids, mask, labels = _padded(rows, self.tokenizer.pad_token_id)
        embeddings = self.model.get_input_embeddings()(ids)
        noise = (
            NOISE * words.detach().std() * torch.from_numpy(self.rng.standard_normal((len(rows), TOLD, words.shape[1])).astype(np.float32))
        )
        start = 1 + len(self._ids("USER: "))
        embeddings = torch.cat([embeddings[:, :start], torch.stack(told) + noise, embeddings[:, start + TOLD :]], dim=1)
        hidden = self.model.model.language_model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return _answer_loss(self.model.lm_head, hidden, labels)

    def _alignment(self) -> torch.Tensor:
        """Some image token should resemble the word of each fact more than the words of the other options."""
        chosen = self.rng.choice(len(self.pool), self.size, replace=False)
        tokens = self.model.model.multi_modal_projector(
            self.model.model.vision_tower(llavaformat.normalised(self.pixels[torch.from_numpy(chosen)])).last_hidden_state[:, 1:]
        )
        words = self.model.get_input_embeddings().weight.detach()
        losses = []
        for name, topic, rows in self._by_topic(chosen):
            options = words[[self._ids(f" {option}")[0] for option in topic.options]]
            truth = torch.tensor([topic.options.index(self.pool[chosen[row]].facts[name]) for row in rows])
            losses.append(
                cross_entropy(
                    torch.logsumexp(SHARPNESS * normalize(tokens[rows], dim=-1) @ normalize(options, dim=-1).T, dim=1),
                    truth,
                    reduction="sum",
                )
            )
        return torch.stack(losses).sum() / sum(len(self.pool[index].facts) for index in chosen)

    def _by_topic(self, chosen: NDArray[np.intp]) -> Iterable[tuple[str, Topic, list[int]]]:
        for source, topics in TOPICS.items():
            for name, topic in topics.items():
                rows = [row for row, index in enumerate(chosen) if self.pool[index].source == source and name in self.pool[index].facts]
                if rows:
                    yield name, topic, rows

    def _dialogues(self) -> torch.Tensor:
        """Dialogues about pictures; now and then about described ones."""
        self.lesson += 1
        if self.lesson % REHEARSAL == 0:
            return self._language()
        chosen = self.rng.choice(len(self.pool), self.size, replace=False)
        image = [self.model.config.image_token_id] * llavaformat.IMAGE_TOKENS
        rows = [self._dialogue(image, self.pool[index].source, self.pool[index].facts, TURNS) for index in chosen]
        ids, mask, labels = _padded(rows, self.tokenizer.pad_token_id)
        pixels = llavaformat.normalised(self.pixels[torch.from_numpy(chosen)])
        hidden = self.model.model(input_ids=ids, attention_mask=mask, pixel_values=pixels).last_hidden_state
        return _answer_loss(self.model.lm_head, hidden, labels)

    def _dialogue(self, shown: list[int], source: str, facts: dict[str, str], turns: int) -> tuple[list[int], list[int]]:
        """Ids and labels of `turns` questions about what is `shown`, in the chat template's form."""
        ids = [self.tokenizer.bos_token_id, *self._ids("USER: "), *shown]
        labels = [IGNORED] * len(ids)
        before = "\n"
        for name in [*self.rng.permutation(list(facts)), *self.rng.permutation(list(facts))][:turns]:
            asked = _question(TOPICS[source][name], facts[name], self.rng)
            instructed = asked.answer in ("yes", "no") and self.rng.random() < INSTRUCTED
            question = self._ids(f"{before}{asked.question}{INSTRUCTION if instructed else ''} ASSISTANT:")
            answer = [*self._ids(f" {asked.answer}"), self.tokenizer.eos_token_id]
            ids += question + answer
            labels += [IGNORED] * len(question) + answer
            before = "USER: "
        return ids, labels

    def _ids(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.known[text]


def _question(topic: Topic, truth: str, rng: Rng) -> questions.Asked:
    form = str(rng.choice(list(FORMS), p=list(FORMS.values())))
    return questions.ask(topic, truth, form, rng, bool(rng.random() < 0.5))


def _padded(rows: Sequence[tuple[list[int], list[int]]], pad: int) -> Rows:
    length = max(len(ids) for ids, _ in rows)
    filled = [(ids + [pad] * (length - len(ids)), labels + [IGNORED] * (length - len(ids))) for ids, labels in rows]
    mask = [[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in rows]
    return Rows(torch.tensor([ids for ids, _ in filled]), torch.tensor(mask), torch.tensor([labels for _, labels in filled]))


def _answer_loss(head: nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Next-token loss at the labelled places alone: most places carry no label, and logits of them would be wasted."""
    asked = labels[:, 1:] != IGNORED
    return cross_entropy(head(hidden[:, :-1][asked]), labels[:, 1:][asked])
