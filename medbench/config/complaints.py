"""What Pydantic refuses, in one line."""

import difflib
from functools import cache
from typing import Any

from pydantic import ValidationError

from medbench.config.strict import Strict
from medbench.errors import SHOWN, MedbenchError
from medbench.jobs import addresses, limits

TRACKED = False  # what is decided here reaches a job by its parameters


def one_line(where: str, error: ValidationError, remedy: str = "") -> MedbenchError:
    """The complaints of Pydantic as one line: how many, and the first five. `remedy`: for what is of neither this module nor a layout."""
    limit = limits.QUOTED if error.error_count() == 1 else limits.QUOTED // 4
    found = list(dict.fromkeys(_complaint(one, error.title, limit) for one in error.errors()))
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    said = f"{len(found)} mistakes: {'; '.join(found[:SHOWN])}{more}" if len(found) > 1 else found[0]
    return MedbenchError(where, said, remedy or f"see {'config/schema.json' if _keys(error.title) else 'docs/own-data.md'}")


def _complaint(one: Any, title: str, limit: int) -> str:
    """One mistake. `title`: the class that was wanted; `limit`: characters of a value."""
    key = ".".join(str(part) for part in one["loc"] if part not in ("entry", "zero-shot", "probe", "lora"))
    message = one["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list").replace("Tuple should", "List should")
    found = f"{key}: {message}" if key else message
    if one["type"] == "extra_forbidden":
        name = str(one["loc"][-1])
        known = [other for other in _keys(title if len(one["loc"]) == 1 else None) if other != name]  # of another class, it is no remedy
        near = difflib.get_close_matches(name, known, 1, 0.75)
        value = "" if addresses.SECRET_KEY.search(key) else f" (value {_short(one['input'], limit)})"
        return f"unknown key {key!r}{value}" + (f", did you mean {near[0]!r}?" if near else "")
    if one["type"] == "missing":
        return f"key {key!r} is missing"
    if one["loc"][-2:] == ("endpoint", "key"):  # it may be the key itself
        return found
    return f"{found} (found {_short(one['input'], limit)}{_quoting(one)})" if "input" in one and key else found


@cache
def _keys(kind: str | None) -> list[str]:
    """The keys of an entry's class, or of all of them; none of a layout's options."""
    kinds = [one for one in Strict.__subclasses__() if one.__module__.rpartition(".")[0] == __package__]
    return sorted({key for one in kinds if kind in (None, one.__name__) for key in one.model_fields})


def _quoting(error: Any) -> str:
    """How to write what YAML did not take for the text that it looks like. Of a number the spelling is lost: 007 is 7, 010 is 8."""
    if not error["type"].startswith("string") or not isinstance(error["input"], bool | int | float | None):
        return ""
    spelt = {True: '"yes", "on" or "true"', False: '"no", "off" or "false"', None: '"null" or "none"'}
    value = error["input"]
    return f": quote it, as {spelt[value]}" if isinstance(value, bool | None) else ": quote it as it is written"


def _short(value: object, limit: int) -> str:
    return text if len(text := repr(value)) <= limit else f"{text[:limit]}..."
