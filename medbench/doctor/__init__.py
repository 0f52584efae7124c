"""Whether this machine, a run, a data set and a model are fit: one line each, with what to do."""

from typing import NamedTuple

from medbench.errors import MedbenchError

TRACKED = False  # looks, and makes no result
OK, WARNING, FAULT = "ok", "warning", "fault"


class Line(NamedTuple):
    """What was looked at and found; `remedy`: what to do, of a warning or a fault."""

    state: str
    subject: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:<7}  {self.subject}: {self.found}{f'; {self.remedy}' if self.remedy else ''}"


def refused(subject: str, error: MedbenchError, state: str = FAULT) -> Line:
    """An expected error as a line."""
    where = "" if error.where == subject else f"{error.where}: "
    return Line(state, subject, f"{where}{error.found}", error.remedy)
