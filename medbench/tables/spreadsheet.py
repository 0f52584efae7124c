"""Texts that a spreadsheet would run as formulas."""

import re

import polars as pl

TRACKED = False  # what is exported is no result

_FORMULA = r"^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]"  # also full width, as Excel takes them
_NUMBER = r"(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf|nan)"
_NUMBERS = f"^{_NUMBER}(?: {_NUMBER})*$"


def defused(frame: pl.DataFrame) -> pl.DataFrame:
    """An apostrophe before every text, and name of a column, that a spreadsheet would run as a formula; numbers stay, also as text."""
    text = pl.col(pl.String)
    is_formula = text.str.contains(_FORMULA) & ~text.str.contains(_NUMBERS)
    safe = frame.with_columns(pl.when(is_formula).then(text.str.replace("^", "'")).otherwise(text))
    return safe.rename({name: f"'{name}" for name in frame.columns if re.match(_FORMULA, name)})


def fused(text: str) -> str:
    """A text as it was before `defused`."""
    return text[1:] if text.startswith("'") and re.match(_FORMULA, text[1:]) else text
