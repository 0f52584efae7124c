"""How a question is put to a model: the same words for every model, chosen by the question alone. Standard library only."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_AUXILIARIES = (
    "is are was were am isn't aren't wasn't weren't do does did don't doesn't didn't has have had hasn't haven't hadn't "
    "can could can't couldn't will would won't wouldn't shall should shouldn't may might must"
)
_OPENS = re.compile(rf"\W*({'|'.join(_AUXILIARIES.split())})\b", re.IGNORECASE)
_OR = re.compile(r"\bor\b", re.IGNORECASE)


class Asking(NamedTuple):
    """Templates with a place `{question}`, and the one token budget of all models (`config/templates.yaml`)."""

    question: str
    yes_no: str
    max_new_tokens: int

    def text(self, question: str) -> str:
        """What the model reads of a question."""
        template = self.yes_no if asks_yes_no(question) else self.question
        return template.replace("{question}", question.strip())


class Choosing(NamedTuple):
    """How a question with lettered options is put: a template with places `{question}` and `{options}`."""

    template: str
    told: str  # said before it, where the model is told that it sees no image
    wording: str  # as-is | told | options-only (without the question)
    rotations: int  # orders of the options; 0: the data's own
    max_new_tokens: int

    def text(self, question: str, options: Sequence[str]) -> str:
        """What the model reads of a question whose options stand in this order."""
        lines = "\n".join(f"({chr(ord('A') + place)}) {text.strip()}" for place, text in enumerate(options))
        shown = "" if self.wording == "options-only" else question.strip()
        text = re.sub(r"\{(question|options)\}", lambda found: shown if found[1] == "question" else lines, self.template).strip()
        return f"{self.told}\n\n{text}" if self.wording == "told" else text


def asks_yes_no(question: str) -> bool:
    """Whether a question wants yes or no: it opens with an auxiliary verb and names no alternatives with "or".

    From the question alone: reading the reference for this would tell the model the kind of answer (PROTOCOL.md, section 4, point 8).
    """
    return _OPENS.match(question.replace("\u2019", "'")) is not None and _OR.search(question) is None


def asking(fields: dict[str, Any]) -> Asking:
    """From a job's parameters."""
    return Asking(**fields)
