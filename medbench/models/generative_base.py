"""What a generative model must offer: questions about images in, answers out; for training, batches with labels on the answers.

One file per architecture stands in `generative/` and offers `load`; most of what follows holds for every processor of the
hub, so an architecture mostly says where adapters go and how its checkpoint ends an answer.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, GenerationConfig, StoppingCriteria

from medbench.errors import MedbenchError
from medbench.jobs import limits, process
from medbench.models import hub, loading
from medbench.models.answering import Answer, Query
from medbench.models.checkpoint import Source
from medbench.models.loading import refusing

IGNORED = -100
"""The label of a token that is not in the loss."""
QUESTION = 'Is the "left" lung <5 cm & clear {or not}?'
"""What a chat template is given to see where it puts a question; with what a template might escape."""
REPEATED, BLOCK = 24, 8
"""An answer is stopped when its last 24 tokens only repeat a block of at most 8."""


def repeats(ids: torch.Tensor) -> torch.Tensor:
    """Whether rows [n, length] end in such a repetition: bool [n]."""
    tail = ids[:, -REPEATED:]
    found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    if tail.shape[1] == REPEATED:
        for lag in range(1, BLOCK + 1):
            found |= (tail[:, lag:] == tail[:, :-lag]).all(dim=1)
    return found


class DegenerateRepetition(StoppingCriteria):
    """Ends each row of a batch for itself, so that its answer does not depend on the others."""

    def __init__(self, prompt: int) -> None:
        self._prompt = prompt  # tokens before the answer

    def __call__(self, input_ids: Any, scores: Any, **given: Any) -> Any:
        """Rows that end here."""
        return repeats(input_ids[:, self._prompt :])


class Generative(ABC):
    """A checkpoint with its own processor and chat template."""

    model: Any
    """The torch module, or peft's wrapper around it."""
    processor: Any
    lora_targets = rf".*{re.escape(hub.DECODER)}.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    """Regular expression over the names of the decoder's linear layers, full match: unscoped names also hit the vision tower."""
    more_ends: tuple[str, ...] = ()
    """Tokens that end an answer whatever the checkpoint's generation configuration says, where its vocabulary has them."""
    weights: dict[str, str]
    """What was loaded: `checkpoint`, and each companion by name -> its commit or SHA-256."""
    projector: tuple[str, ...]
    """Names of the modules between vision tower and decoder: trained and saved whole."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        hub.check_vocabulary(self.tokenizer, model.get_input_embeddings().num_embeddings, Path(model.name_or_path))
        self.ends = self._ends()
        """Ids that end an answer."""
        model.generation_config = self._greedy(model.generation_config)
        self.exceptions: dict[str, Any] = {}  # from how its image processor would prepare images
        self._turns = {1: self._around(1)}  # number of images -> what stands before and after a question, in its prompt
        self._lock = Lock()  # a fast tokenizer keeps the padding of its latest call, so two threads would disturb each other
        self.image_processor = type(processor.image_processor).__name__

    @abstractmethod
    def completion(self, answer: str) -> str:
        """What follows the prompt in training: the answer as the chat template would put it, with the token that ends it."""

    @property
    def tokenizer(self) -> Any:
        """The processor's."""
        return self.processor.tokenizer

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """What the tokenizer takes for marks of its template or of images wherever it stands in a text, the longest first."""
        tokenizer = self.tokenizer
        found = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} | {*tokenizer.all_special_tokens}
        found |= {getattr(self.processor, name, "") for name in ("image_token", "boi_token")}  # which a tokenizer may not call special
        return tuple(sorted((mark for mark in found if len(mark) > 1), key=lambda mark: (-len(mark), mark)))

    @property
    def base(self) -> Any:
        """The checkpoint's own module, also where adapters are in it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def context(self) -> int:
        """Tokens that the decoder reads, images and answer included."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def image_token_id(self) -> int:
        """The id that stands for a piece of an image."""
        return int(self.model.config.image_token_id)

    def _ends(self) -> frozenset[int]:
        found, vocabulary = self.model.generation_config.eos_token_id, self.tokenizer.get_vocab()
        found = self.tokenizer.eos_token_id if found is None else found
        more = {vocabulary[token] for token in self.more_ends if token in vocabulary}
        return frozenset(found if isinstance(found, list) else [found]) | more

    def _greedy(self, own: GenerationConfig) -> GenerationConfig:
        """One decoding for all models: of a checkpoint's own configuration, its special tokens alone.

        A penalty on repetition, say, would stay on without sampling too, and fall on words that the question holds.
        """
        return GenerationConfig(  # type: ignore[no-untyped-call]
            bos_token_id=own.bos_token_id, eos_token_id=sorted(self.ends), pad_token_id=self.tokenizer.pad_token_id,
            suppress_tokens=own.suppress_tokens,
        )  # fmt: skip

    def prompt(self, text: str, n_images: int = 1) -> str:
        """One user turn, images first, as the checkpoint's own chat template has it, up to where the answer begins."""
        if n_images not in self._turns:
            self._turns[n_images] = self._around(n_images)
        before, after = self._turns[n_images]
        return f"{before}{text}{after}"

    def require_images(self, n_images: int) -> None:
        """Raise MedbenchError where a prompt cannot hold so many images: said before the first question is asked."""
        if n_images in self._turns:
            return
        where, image = f"checkpoint {self.model.name_or_path or type(self).__name__}", Image.new("RGB", (64, 64))

        def shown(n: int) -> int:
            query = Query(where, image if n else None, QUESTION, (image,) * (n - 1))
            return int((self.encode([query])["input_ids"] == self.image_token_id).sum())

        try:
            found = shown(n_images)
        except MedbenchError as error:
            raise MedbenchError(where, f"cannot be shown {n_images} images at once: {error.found}", error.remedy) from None
        if found != n_images * shown(1):
            raise MedbenchError(where, f"its prompt does not hold {n_images} images", "leave out the data set, or the model")

    def _around(self, n_images: int) -> tuple[str, str]:
        """What the chat template puts before a question and behind it, the same for all: it runs once, apart, and sees no data.

        Raises MedbenchError for a template that is broken, that takes too long or too much, or that drops or changes the question.
        """
        content = [*([{"type": "image"}] * n_images), {"type": "text", "text": QUESTION}]

        def render() -> str:
            made = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            if len(made) > limits.PROMPT_CHARACTERS:
                raise ValueError(f"makes {len(made)} characters of one question, more than {limits.PROMPT_CHARACTERS}")
            return str(made)

        where = f"chat template of {self.model.name_or_path or type(self).__name__}"
        remedy = "give the checkpoint's own chat_template.jinja"
        try:
            made = process.apart(render, limits.TEMPLATE_SECONDS, limits.TEMPLATE_BYTES)
        except (TimeoutError, MemoryError, ValueError) as error:
            raise MedbenchError(where, f"makes no prompt ({' '.join(str(error).split())[:200]})", remedy) from None
        before, found, after = made.partition(QUESTION)
        if not found or QUESTION in after:
            raise MedbenchError(where, f"{'repeats' if found else 'drops or changes'} the question", remedy)
        return before, after

    def encode(self, queries: Sequence[Query], completions: Sequence[str] | None = None, side: str = "left") -> dict[str, torch.Tensor]:
        """All that the processor makes of prompts (and completions) with their images, padded on one side, on the CPU."""
        ends = completions or [""] * len(queries)
        texts = [self.prompt(query.text, len(query.images)) + end for query, end in zip(queries, ends, strict=True)]
        images = [list(query.images) for query in queries] if any(query.images for query in queries) else None
        try:
            with self._lock:
                special = self._adds_special(texts)
                words = {"padding": True, "padding_side": side, "add_special_tokens": special}
                made = self.processor(text=texts, images=images, text_kwargs=words, images_kwargs=self.exceptions, return_tensors="pt")
        except ValueError as error:
            if len(queries) > 1:  # which one it is
                for query, end in zip(queries, ends, strict=True):
                    self.encode([query], [end], side)
            sizes = " and ".join(f"{image.width}x{image.height}" for image in queries[0].images)
            said = " ".join(str(error).split())[:160]
            found = f"{type(self.processor).__name__} refuses it with {f'its image of {sizes}' if sizes else 'no image'} ({said})"
            raise MedbenchError(queries[0].name, found, "fix or drop the row") from None
        return dict(made)

    def lengths(self, texts: Sequence[str], sizes: Sequence[Sequence[tuple[int, int]]]) -> list[int]:
        """Tokens of questions, each with images of (width, height), nearly: what batches of similar length are put together by.

        Texts go to the tokenizer together, and each size is counted once: one by one this took a tenth of a small model's time.
        """
        pieces = {size: self.image_tokens(size) for size in {size for of in sizes for size in of}}
        with self._lock:
            ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return [len(words) + sum(pieces[size] for size in of) for words, of in zip(ids, sizes, strict=True)]

    def image_tokens(self, size: tuple[int, int]) -> int:
        """Tokens that an image of (width, height) takes, as the processor counts them; a resize or tiles may make them many."""
        try:
            counted = self.processor._get_num_multimodal_tokens(image_sizes=[size[::-1]], **self.exceptions)
        except ValueError:  # one that the processor refuses: `encode` says which
            return 0
        return int(counted["num_image_tokens"][0])

    def _adds_special(self, texts: Sequence[str]) -> bool:
        """Whether the tokenizer adds its first token: not where the chat template wrote it already (Gemma)."""
        first = self.tokenizer.bos_token
        return not (first and texts and texts[0].startswith(first))

    def inputs(self, queries: Sequence[Query], max_new_tokens: int) -> dict[str, torch.Tensor]:
        """Left-padded inputs of `generate`. Raises MedbenchError naming a question that leaves no room for the answer."""
        encoded = self.encode(queries)
        self._check_length(queries, encoded["attention_mask"], max_new_tokens)
        return encoded

    def generate(self, inputs: dict[str, torch.Tensor], max_new_tokens: int, past: Any = None) -> list[Answer]:
        """Greedy answers to what `inputs` made, in order. `past`: keys and values of tokens before them, which their mask counts."""
        start = inputs["input_ids"].shape[1]
        output = self.generated(inputs, max_new_tokens, past, stopping_criteria=[DegenerateRepetition(start)])
        return [self._answer(row) for row in output[:, start:].cpu()]

    def generated(self, inputs: dict[str, torch.Tensor], max_new_tokens: int, past: Any = None, **more: Any) -> Any:
        """What the library's greedy `generate` returns."""
        more |= {} if past is None else {"past_key_values": past}  # "cache" in transformers >= 5.24, which still takes this name
        with torch.inference_mode(), self.precision():
            return self.model.generate(**self.placed(inputs), max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, **more)

    def train_batch(self, queries: Sequence[Query], answers: Sequence[str]) -> dict[str, torch.Tensor]:
        """Right-padded inputs with `labels` on exactly the completion of each answer, on the CPU.

        Raises MedbenchError naming a question that is too long, or whose prompt is no token prefix of prompt + completion.
        """
        completions = [self.completion(answer) for answer in answers]
        whole = self.encode(queries, completions, side="right")
        self._check_length(queries, whole["attention_mask"], 0)
        ids, mask, labels = whole["input_ids"], whole["attention_mask"].bool(), whole["input_ids"].clone()
        ends = self._completion_ids(queries, completions)
        for row, (query, length, end) in enumerate(zip(queries, mask.sum(dim=1).tolist(), ends, strict=True)):
            if ids[row, length - len(end) : length].tolist() != end:
                raise self._no_prefix(query)
            labels[row, : length - len(end)] = IGNORED
        return {**whole, "labels": labels.masked_fill(~mask, IGNORED)}

    def loss(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean loss per answer token of what `train_batch` made.

        Logits are made from the first answer on: over images and questions, a vocabulary wide, they would take more than all else.
        """
        labels = inputs["labels"]
        kept = labels.shape[1] - int((labels != IGNORED).any(dim=0).nonzero()[0]) + 1  # a token is predicted at the place before it
        given = self.placed({**inputs, "labels": labels[:, -kept:]})
        with self.precision():
            loss: torch.Tensor = self.model(**given, logits_to_keep=kept, use_cache=False).loss
        return loss

    def _completion_ids(self, queries: Sequence[Query], completions: Sequence[str]) -> list[list[int]]:
        """Ids that each completion adds to its prompt: of the texts alone, since an image only takes places inside the prompt."""
        prompts = [self.prompt(query.text, len(query.images)) for query in queries]
        ids = self.text_ids([*prompts, *(prompt + end for prompt, end in zip(prompts, completions, strict=True))])
        before, after = ids[: len(prompts)], ids[len(prompts) :]
        for query, prompt, whole in zip(queries, before, after, strict=True):
            if whole[: len(prompt)] != prompt:
                raise self._no_prefix(query)
        return [whole[len(prompt) :] for prompt, whole in zip(before, after, strict=True)]

    def _no_prefix(self, query: Query) -> MedbenchError:
        found = f"its prompt is no token prefix of prompt + answer ({self.prompt(query.text, len(query.images))[-20:]!r})"
        return MedbenchError(query.name, found, f"fix `completion` of architecture {type(self).__name__}")

    def placed(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Inputs on the model's device; pixels in its number format."""
        moved = {name: value.to(self.device, non_blocking=True) for name, value in inputs.items()}
        return {name: value.to(self.model.dtype) if value.is_floating_point() else value for name, value in moved.items()}

    def precision(self) -> torch.autocast:
        """On a GPU, trained parts are float32 and compute in bfloat16 beside the checkpoint's."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda" and self.base is not self.model)

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of prompts as the processor makes them, but for their images, each of which is one token or a few."""
        with self._lock:
            return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=self._adds_special(texts))["input_ids"]]

    def tokens(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        with self._lock:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them: less memory, equal results, a third more time."""
        self.base.enable_input_require_grads()
        enable = getattr(self.base, "activation_checkpointing_enable", None) or self.base.gradient_checkpointing_enable  # the older name
        enable({"use_reentrant": False})

    def _answer(self, row: torch.Tensor) -> Answer:
        """From what `generate` wrote, fillers behind the end included: a filler may be an end itself."""
        ids = row.tolist()
        end = next((place for place, token in enumerate(ids) if token in self.ends), len(ids))
        circles = repeats(row[:end].unfold(0, REPEATED, 1)) if end >= REPEATED else row[:0]  # of every place where it could have ended
        circle = REPEATED + int(circles.int().argmax()) if circles.any() else None
        kept = ids[: end if circle is None else circle]
        text = self.tokenizer.decode(kept, skip_special_tokens=True).strip()
        reason = "repetition" if circle is not None else "stop" if end < len(ids) else "length"
        return Answer(text, reason, len(kept))

    def _check_length(self, queries: Sequence[Query], mask: torch.Tensor, room: int) -> None:
        for query, length in zip(queries, mask.sum(dim=1).tolist(), strict=True):
            self.check_length(query, length, room)

    def check_length(self, query: Query, length: int, room: int = 0) -> None:
        """Raise MedbenchError naming a question of `length` tokens that leaves no room for `room` more."""
        context = self.context
        if length + room > context:
            images = "its image" if len(query.images) < 2 else f"its {len(query.images)} images"
            found = f"the question takes {length} tokens with {images} and {room} for the answer, the model reads {context}"
            raise MedbenchError(query.name, found, "shorten the question, lower max_new_tokens, or drop the row")


def load(source: Source, **placement: Any) -> Generative:
    """The model of a job; `placement` as in `base.load`.

    Raises MedbenchError as the architecture does, and for a field that its image processor does not have.
    """
    given = {**placement, "bits": source.bits} if source.bits else placement
    model: Generative = loading.load(source, **given)
    images = model.processor.image_processor
    hub.check_sides(images, limits.PIXELS if hasattr(images, "merge_size") else limits.SIDE, f"processor of {source.checkpoint}")
    known = sorted(images.valid_kwargs.__annotations__)
    for name in source.processor:
        if name not in known:
            found = f"its {type(images).__name__} knows no {name!r}"
            raise MedbenchError(f"processor of {source.checkpoint}", found, f"choose from {', '.join(known)}")
    model.exceptions = dict(source.processor)
    try:
        images(Image.new("RGB", (64, 64)), return_tensors="pt", **model.exceptions)
    except Exception as error:  # of whatever class the library has for wrong values
        found = f"its {type(images).__name__} does not take {model.exceptions} ({' '.join(str(error).split())[:160]})"
        raise MedbenchError(f"processor of {source.checkpoint}", found, "fix `processor` in the registry") from None
    _check_image(model, f"checkpoint {source.checkpoint}")
    return model


def _check_image(model: Generative, where: str) -> None:
    """Raise MedbenchError where a prompt holds no image, or one of more tokens than the model reads."""
    image, remedy = Image.new("RGB", (64, 64)), "give the checkpoint's own chat_template.jinja and processor_config.json"
    with refusing(where, "its processor makes no input", remedy):
        if (pieces := model.image_tokens(image.size)) > model.context:
            found = f"its processor makes {pieces} tokens of a small image, the model reads {model.context}"
            raise MedbenchError(where, found, remedy)
        try:
            shown = model.encode([Query(where, image, QUESTION)])["input_ids"]
        except MedbenchError as error:
            raise MedbenchError(where, f"its chat template does not fit its processor: {error.found}", remedy) from None
        if not bool((shown == model.image_token_id).any()):
            raise MedbenchError(where, "its chat template drops the image", remedy)


class ChatEnded(Generative):
    """A model whose turn ends with the tokenizer's end token, right after the answer."""

    def completion(self, answer: str) -> str:
        """The answer and the end."""
        return f"{answer}{self.tokenizer.eos_token}"


def load_processor(path: Path, model_type: str) -> Any:
    """The processor of a folder.

    Raises MedbenchError when the folder is of another model type, has no tokenizer, no processor, or no chat template.
    """
    hub.check_type(path, model_type)
    hub.check_tokenizer_files(path)
    with refusing(path, "holds no usable processor", "add the processor's and the tokenizer's files"):
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=False, local_files_only=True)  # type: ignore[no-untyped-call]
    if not hasattr(processor, "image_processor"):
        raise MedbenchError(path, "its processor reads no images", "add preprocessor_config.json and processor_config.json")
    if not processor.chat_template:
        raise MedbenchError(path, "its processor has no chat template", "add chat_template.jinja of the checkpoint")
    if processor.tokenizer.pad_token_id is None:
        raise MedbenchError(path, "its tokenizer has no padding token", "add pad_token to tokenizer_config.json")
    return processor
