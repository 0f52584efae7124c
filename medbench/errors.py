"""Expected errors: one line that names the file or cell, the value found and the remedy."""

import difflib
import re
from collections.abc import Iterable, Sequence

TRACKED = False  # how an error is worded is no result
LONGEST = 2000
"""Of what an error says was found [characters]: a value may be as long as a file."""
SHOWN = 5
"""Of several mistakes, how many are named."""
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]")


def visible(text: str) -> str:
    """Text from outside for a page or a console: what would act there, or reverse the order of letters, is spelled out (`\\x1b`).

    Tabs and line feeds stay.
    """
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}", text)


def whole(text: str) -> str:
    """Text from outside as any file can hold it: half of a surrogate pair, which JSON can spell, is U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class MedbenchError(Exception):
    """Something a user can fix. The command line prints it as `ERROR: ...` and exits with code 2, without a traceback."""

    def __init__(self, where: object, found: str, remedy: str) -> None:
        """`where`: file, row or cell; `found`: what is wrong, with the value; `remedy`: what to do next."""
        found = found if len(found) <= LONGEST else f"{found[: LONGEST // 2]} ... {found[-LONGEST // 2 :]}"
        super().__init__(visible(f"{where}: {found}; {remedy}").replace("\n", " "))
        self.where, self.found, self.remedy = str(where), found, remedy


def choose(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not among those known: the nearest, then all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1, 0.6)
    return f"{f'did you mean {near[0]}? ' if near else ''}choose from {', '.join(names)}"


def first(mistakes: Sequence[str], separator: str = ", ", limit: int = SHOWN) -> str:
    """The first of several mistakes, and how many more there are."""
    return separator.join(mistakes[:limit]) + (f" and {len(mistakes) - limit} more" if len(mistakes) > limit else "")


def together(where: str, errors: Sequence[MedbenchError]) -> MedbenchError:
    """One error for several mistakes in one place: how many, and the first of them; a single one as it is."""
    if len(errors) == 1:
        return errors[0]
    remedies = {error.remedy for error in errors}
    shown = [f"{error.where.removeprefix(f'{where}: ')}: {error.found}" for error in errors[:SHOWN]]
    if len(remedies) > 1:
        shown = [f"{text} ({error.remedy})" for text, error in zip(shown, errors, strict=False)]
    more = [f"and {len(errors) - SHOWN} more"] if len(errors) > SHOWN else []
    remedy = remedies.pop() if len(remedies) == 1 else "mend them all, then run again"
    return MedbenchError(where, f"{len(errors)} mistakes: {'; '.join([*shown, *more])}", remedy)


class Interrupted(MedbenchError):
    """What was done so far stands, and another try goes on from it: memory or disk is full."""


class Extra(ImportError):
    """An optional library that is not installed: what needs it, and how to install it."""

    def __init__(self, needed: str, remedy: str) -> None:
        super().__init__(f"{needed}; {remedy}")
