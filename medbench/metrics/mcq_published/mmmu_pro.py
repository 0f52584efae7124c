"""MMMU-Pro's official parser (MMMU-Benchmark/MMMU, mmmu-pro/evaluate.py).

Wrong: after "Answer:" any capital letter of an option within a word counts; without "Answer:" as lmms-eval, so "I can't answer" is I.
"""

from collections.abc import Mapping

from . import lmms_eval
from .reading import Reading, holding, parsed


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """The only option letter after the last "Answer:", else as lmms-eval reads the whole answer."""
    _, announced, rest = answer.rpartition("Answer:")
    found = holding(rest if announced else "", zip(options, options, strict=True))
    return parsed(found[0]) if len(found) == 1 else lmms_eval.read(answer, options)
