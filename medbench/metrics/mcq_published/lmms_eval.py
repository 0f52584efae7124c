"""lmms-eval's parser of MMMU (EvolvingLMMs-Lab/lmms-eval, tasks/mmmu/utils.py).

Wrong: any word that ends in an option's letter counts ("NSAID " is D, "HIV. RNA " is A), and of several the first option may win.
"""

from collections.abc import Mapping

from .mmmu import mentioned
from .reading import Reading

FORMS = "({})", "{} ", "{}."


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """(B), else "B ", else "B.", else the text of an option."""
    return mentioned(answer, options, FORMS)
