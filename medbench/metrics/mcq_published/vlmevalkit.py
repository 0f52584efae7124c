"""VLMEvalKit without a judge (open-compass/VLMEvalKit, utils/matching_util.py, since June 2026).

Wrong: "answer is" has no end of word after its letter ("the answer is **b**ilateral" is B) and knows A to D only; "vitamin B deficiency" is
B; a letter more than four words before the end counts for nothing. With a judge that fails three times a letter is drawn.
"""

import re
from collections.abc import Mapping

from .reading import RANDOM, UNPARSED, Reading, holding, parsed

_DECLINED = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
_LAST = 4  # words
_NONE = "Z"  # their letter for no option


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """The only letter among the words, in the last four; else the first "answer is B"; else the only option text in a short answer."""
    if any(phrase in answer for phrase in _DECLINED):
        return UNPARSED
    words = answer.translate(_MARKS).split()
    found = [letter for letter in options if letter in words]
    if len(found) == 1 and words.index(found[0]) >= len(words) - _LAST:
        return parsed(found[0])
    if not found and _NONE in words:
        return UNPARSED
    if (stated := _STATED.search(answer)) and stated[1].upper() in options:
        return parsed(stated[1].upper())
    is_short = len(answer) <= 2 * sum(map(len, options.values()))
    named = holding(answer.lower(), ((letter, text.lower()) for letter, text in options.items())) if is_short else []
    return parsed(named[0]) if len(named) == 1 else RANDOM
