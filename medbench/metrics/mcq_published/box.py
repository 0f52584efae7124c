r"""The companion study (arXiv 2507.11200): what the last `\boxed{}` holds is compared with the options.

The article gives no more than that; letter case and the forms "B. text" and "(B)" are ours. Wrong: an answer without a box is wrong
whatever it says.
"""

import re
from collections.abc import Mapping

from .reading import UNPARSED, Reading, last_box, parsed


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """The letter that the box names, by itself, before its text, or by the text."""
    said = last_box(answer)
    if said is None:
        return UNPARSED
    found = re.fullmatch(r"\(?([A-Za-z])\)?(?:\s*[.:)]?\s*(.*))?", said, re.DOTALL)
    if found and (letter := found[1].upper()) in options and (found[2] or "").lower() in ("", options[letter].strip().lower()):
        return parsed(letter)
    return next((parsed(letter) for letter, text in options.items() if text.strip().lower() == said.lower()), UNPARSED)
