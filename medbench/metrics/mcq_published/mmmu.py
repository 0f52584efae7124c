"""MMMU's official parser (MMMU-Benchmark/MMMU, eval/eval_utils.py), and what MMMU-Pro and lmms-eval make of it.

Wrong: the last letter in brackets, or between spaces, wins whatever it says ("A patient" is A, "I can't" is I); else a letter is drawn.
"""

from collections.abc import Mapping, Sequence

from .reading import RANDOM, Reading, holding, last_by, parsed

_MARKS = ",.!?;:'"
_FEW = 5  # words: only in a longer answer the options' texts are looked for
_BRACKETED, _SPACED = "({})", " {} "


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """(B), else " B ", else the text of an option; of several the last."""
    return mentioned(answer, options, (_BRACKETED, _SPACED))


def mentioned(answer: str, options: Mapping[str, str], forms: Sequence[str]) -> Reading:
    """The first form that any letter has; of several letters the last one. Only bracketed and spaced letters have a place: see `_place`."""
    said = answer
    for mark in _MARKS:  # one after the other: "B.," keeps its full stop
        said = said.strip(mark)
    said = f" {said} "
    for form in forms:
        if found := holding(said, ((letter, form.format(letter)) for letter in options)):
            return parsed(last_by({letter: _place(said, letter, form) for letter in found}))
    lowered = said.lower()
    texts = {letter: text.lower() for letter, text in options.items()}
    if len(said.split()) > _FEW and (found := holding(lowered, texts.items())):
        return parsed(last_by({letter: lowered.rfind(texts[letter]) for letter in found}))
    return RANDOM


def _place(said: str, letter: str, form: str) -> int:
    """Where a letter stands last. One of another form has no place (-1), so that the first option wins there."""
    return said.rfind((form if form == _BRACKETED else _SPACED).format(letter))
