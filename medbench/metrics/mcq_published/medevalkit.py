r"""MedEvalKit's judge of multiple choice (alibaba-damo-academy/MedEvalKit, utils/utils.py), options written "A. text" as most tasks do.

Wrong: it never says that it cannot read. The last resort is the option nearest by difflib, and A where none is near: the empty answer is A,
and a refusal, `\boxed{\text{B}}` and "**Answer: B**" (read as "b**") are whatever they share most characters with.
"""

from collections.abc import Mapping

from .reading import Reading, last_box, nearest, parsed

_ANNOUNCED = (
    "**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "\u7b54\u6848:", "final answer", "final answer is",
)  # fmt: skip


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """A paragraph that is a letter, else the letter after an announcement, else the nearest option."""
    letters = {letter.lower(): letter for letter in options}
    said = answer.lower()
    paragraphs = said.split("\n\n")
    if paragraphs[0] in letters:
        said = paragraphs[0]
    elif (end := paragraphs[-1].split(".")[0]) in letters:
        said = end
    said = _announced(said).strip().replace("\n", "")
    short = said.split(".")[0].split(":")[-1]
    texts = {letter: f"{letter}. {text}".lower() for letter, text in options.items()}
    return parsed(letters.get(short) or nearest(said, texts) or next(iter(options)))


def _announced(said: str) -> str:
    if "boxed" in said:
        said = last_box(said) or "none"
    elif "<answer>" in said:
        said = " ".join(piece.split("</answer>")[0] for piece in said.split("<answer>")[1:] if "</answer>" in piece).strip() or said
    for phrase in _ANNOUNCED:
        said = said.split(phrase)[-1]
    return said
