"""OmniMedVQA's question-answering score (OpenGVLab/Multi-Modality-Arena, MedicalEval): the option text nearest to the answer.

Wrong: the letter "B" names no option; it is the text with the largest share of this character, if any has it.
"""

from collections.abc import Mapping

from .reading import UNPARSED, Reading, nearest, parsed


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """The nearest text by difflib."""
    letter = nearest(answer, options)
    return parsed(letter) if letter else UNPARSED
