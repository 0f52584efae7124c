"""evalscope's parser (modelscope/evalscope, utils/multi_choices.py).

Wrong: without "ANSWER:" the last capital letter of the answer is its choice, whatever word it stands in ("of the GI" is I).
"""

import re
from collections.abc import Mapping

from .reading import UNPARSED, Reading, parsed

_MARKER = re.compile(r"answer\s*:\s*\**\s*", re.IGNORECASE)
_COMMA = "[,\uff0c]"
_LABELS = (
    re.compile(rf"[(\[\uff08\u3010]\s*([A-Za-z\d](?:\s*{_COMMA}\s*[A-Za-z\d])*)\s*[)\]\uff09\u3011]"),  # (A), [A, C]
    re.compile(r"([A-Za-z\d][A-Za-z\d ,]*)"),
)


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """The label after the last "ANSWER:" that has one, else the answer's last capital letter."""
    for marker in reversed(list(_MARKER.finditer(answer))):
        for form in _LABELS:
            if (found := form.match(answer, marker.end())) and (label := _label(found[1], options)):
                return parsed(label) if label in options else UNPARSED
    last = next((mark for mark in reversed(answer) if mark.isupper()), "")
    return parsed(last) if last in options else UNPARSED


def _label(text: str, options: Mapping[str, str]) -> str:
    """The words at the beginning of a text that are made of option letters."""
    end = 0
    for word in re.finditer(r"[A-Za-z\d]+", text):
        if not set(word[0]) <= options.keys():
            break
        end = word.end()
    return text[:end].strip()
