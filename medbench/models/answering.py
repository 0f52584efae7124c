"""The seam for whatever answers questions about images: a hub model, an endpoint, a judge. Needs no torch.

A module behind the seam offers `answerer(source, change) -> Answerer`. For every checkpoint that runs here that is
`medbench.models.hub_answerer`, for texts alone `hub_speaker`; a remote model is a file of its own in `medbench/models/remote/`. Training
is another protocol (`generative_base.Generative`), which only hub models offer.
"""

import importlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from medbench.errors import MedbenchError
from medbench.jobs.microbatching import Microbatching
from medbench.models.checkpoint import Source
from medbench.models.prefetch import Row

NO_IMAGE = ""
"""Stands for the image of a question without one."""
HUB = "medbench.models.hub_answerer"
SPEAKER = "medbench.models.hub_speaker"
REMOTE = "medbench.models.remote."
T = TypeVar("T")


class Query(NamedTuple):
    """A question, as the model reads it, about an RGB image, several, or none. `name` is for errors: the sample."""

    name: str
    image: Image.Image | None
    text: str
    more: tuple[Image.Image, ...] = ()  # images after the first

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """All, in the order in which the question names them."""
        return (() if self.image is None else (self.image,)) + self.more


class Answer(NamedTuple):
    """What a model answered; `n_tokens` without the end.

    `finish_reason`: stop (the model ended it), length (the budget did), repetition (it repeated itself and was stopped), refusal (it
    declined by a message of its own) or filter (the service held the answer back: `text` is empty).
    """

    text: str
    finish_reason: str
    n_tokens: int


class Prompt(NamedTuple):
    """A text that is put to a model without an image.

    `schema`: of JSON, to which a model is held where it can be. `round`: tells apart prompts that are equal and asked again. `name`: for
    errors.
    """

    name: str
    system: str
    text: str
    schema: Mapping[str, Any] | None = None
    round: int = 0


class Said(NamedTuple):
    """What a model said to a prompt. `answered_by`: its name as it came back, or its weights; `request`: key of the kept answer, or of
    the prompt.

    `finish_reason`: as of `Answer`, or context (the prompt leaves no room for a reply: it was not asked).
    """

    text: str
    finish_reason: str
    answered_by: str
    request: str = ""


class Questions(NamedTuple):
    """Questions of a data set in the order of its table; a question is named by its place."""

    names: Sequence[str]  # for errors: the samples
    texts: Sequence[str]  # as the model reads them
    image_ids: Sequence[str]  # the first image of each; `NO_IMAGE` where there is none
    images: Callable[[Sequence[str], int], Iterable[Sequence[Row]]]  # image ids, how many at once -> encoded images, each once
    look: Callable[[bytes], Image.Image]  # how an encoded image is shown: as it is, or grey
    max_new_tokens: int  # of an answer
    more_ids: Sequence[Sequence[str]] = ()  # images after the first, of each question; empty where no question has any

    def query(self, place: int, data: bytes) -> Query:
        """A question with its one image, encoded in `data`. Raises MedbenchError for an image that cannot be decoded."""
        return Query(self.names[place], decoded(self.image_ids[place], data, self.look), self.texts[place])

    def images_of(self, place: int) -> tuple[str, ...]:
        """Ids of a question's images."""
        first = self.image_ids[place]
        return (() if first == NO_IMAGE else (first,)) + tuple(self.more_ids[place] if self.more_ids else ())

    def with_images(self, place: int, data: Mapping[str, bytes]) -> Query:
        """A question with all its images, encoded in `data`. Raises MedbenchError for an image that cannot be decoded."""
        images = [decoded(name, data[name], self.look) for name in self.images_of(place)]
        return Query(self.names[place], images[0] if images else None, self.texts[place], tuple(images[1:]))

    def windows(self, size: int) -> Iterator["Window"]:
        """Every question once, beside its images, which are read `size` at a time, each once.

        An image stays in memory until its last question has been handed out: questions about one image never wait.
        """
        wanted = [self.images_of(place) for place in range(len(self.texts))]
        return windows(wanted, self.images([name for names in wanted for name in names], size) if any(wanted) else (), size)


class Letters(NamedTuple):
    """What a model says of the letters of some options where its answer begins."""

    log_probabilities: list[float]  # natural, one a letter: of all tokens that spell it, with and without a space before it
    mass: float  # probability of all these letters together: what is missing goes to other beginnings


class Choices(NamedTuple):
    """Questions with lettered options, each in several orders of its options."""

    questions: Questions  # `texts` are unused
    texts: Sequence[Sequence[str]]  # one an order
    n_options: Sequence[int]


class Answerer(ABC):
    """What answers questions about images."""

    weights: Mapping[str, str] = {}
    """What answers: commit or digest of weights, or the name that a server gives its model."""
    told: Mapping[str, Any] = {}
    """What the run says that changes no answer (`medbench.jobs.stage.Stage.beside`): of a remote model its address, limits and prices."""

    @abstractmethod
    def answers(self, questions: Questions, done: Collection[int], microbatching: Microbatching) -> Iterator[dict[int, Answer]]:
        """Place -> answer of all questions but `done`, in groups that are kept together. Groups follow from the questions alone.

        Raises MedbenchError naming the sample that cannot be asked.
        """

    def tells_letters(self, n: int) -> bool:
        """Whether `letters` answers to questions of up to `n` options."""
        return False

    def letters(self, choices: Choices, done: Collection[int], microbatching: Microbatching) -> Iterator[dict[int, list[Letters]]]:
        """Place -> letters of every order, of all questions but `done`. Raises MedbenchError where the model tells none."""
        name = choices.questions.names[0]
        raise MedbenchError(name, f"{type(self).__name__} gives no probabilities of letters", "score its answers as text")

    def says(self, prompts: Iterable[tuple[T, Prompt]], max_new_tokens: int) -> Iterator[tuple[T, Said]]:
        """What is said to each prompt, in the order in which it comes. Raises MedbenchError where the model takes no text alone."""
        raise MedbenchError(f"{type(self).__name__}", "takes no text without an image", "choose another model as the judge")

    def loglikelihood(self, query: Query, options: Sequence[str]) -> list[float]:
        """Log-probability of each option as the whole answer to a question. Raises MedbenchError where the model tells none."""
        raise MedbenchError(query.name, f"{type(self).__name__} gives no probabilities of answers", "score its answers as text")

    def facts(self, questions: Questions, answers: Mapping[int, Answer]) -> dict[str, Any]:
        """More for the run record, once all is answered."""
        return {}


def module(source: Mapping[str, Any]) -> str:
    """The module behind the seam for these fields of a Source."""
    own: str = source["module"]
    return own if own.startswith(REMOTE) else HUB


def load(source: Source, change: Callable[[Any], None] | None = None) -> Answerer:
    """What answers for a source. `change`: puts an adapter into a hub model; MedbenchError for a model that takes none."""
    found: Answerer = importlib.import_module(module(source._asdict())).answerer(source, change)
    return found


def speaker(source: Mapping[str, Any]) -> str:
    """The module behind the seam for these fields of a Source, where texts alone are put to the model."""
    own = module(source)
    return SPEAKER if own == HUB else own


class Window(NamedTuple):
    """Some images, encoded, and the places of all questions about them."""

    images: dict[str, bytes]
    places: list[int]


def windows(wanted: Sequence[Sequence[str]], batches: Iterable[Sequence[Row]], size: int) -> Iterator[Window]:
    """Every question once, beside its images: those without any first, `size` at a time. `wanted`: image ids of each question."""
    bare = [place for place, names in enumerate(wanted) if not names]
    yield from (Window({}, bare[start : start + size]) for start in range(0, len(bare), size))
    places: dict[str, list[int]] = defaultdict(list)
    for place, names in enumerate(wanted):
        for name in set(names):
            places[name].append(place)
    missing, users, held = [len(set(names)) for names in wanted], {name: len(of) for name, of in places.items()}, dict[str, bytes]()
    for rows in batches:
        ready = []
        for row in rows:
            held[row.image_id] = row.image
            for place in places[row.image_id]:
                missing[place] -= 1
                ready += [place] if not missing[place] else []
        if ready:
            yield Window({name: held[name] for place in ready for name in wanted[place]}, sorted(ready))
        for place in ready:
            for name in set(wanted[place]):
                users[name] -= 1
                if not users[name]:
                    del held[name]


def by_length(
    places: Sequence[int], length: Callable[[int], int], size: int, group: Callable[[int], Hashable] = lambda place: place
) -> Iterator[list[int]]:
    """Batches of `size` places (the last one shorter), the longest first: what fits in memory once fits always.

    Places of one `group` follow each other, behind the longest of them.
    """
    groups = defaultdict[Hashable, list[int]](list)
    for place in sorted(places, key=lambda place: (-length(place), place)):
        groups[group(place)].append(place)
    order = [place for of in groups.values() for place in of]
    for start in range(0, len(order), size):
        yield order[start : start + size]


def decoded(image_id: str, data: bytes, decode: Callable[[bytes], Image.Image]) -> Image.Image:
    """An RGB image. Raises MedbenchError naming one that cannot be decoded."""
    try:
        return decode(data)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what PIL raises for broken or huge files
        found = f"cannot be decoded ({error})"
        raise MedbenchError(f"image {image_id}", found, "delete the data set's tables and run `prepare` again") from None
