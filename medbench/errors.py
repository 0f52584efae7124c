"""Expected errors: one line that names the file or cell, the value found and the remedy."""

TRACKED = False  # how an error is worded is no result


class MedbenchError(Exception):
    """Something a user can fix. The command line prints it as `ERROR: ...` and exits with code 2, without a traceback."""

    def __init__(self, where: object, found: str, remedy: str) -> None:
        """`where`: file, row or cell; `found`: what is wrong, with the value; `remedy`: what to do next."""
        super().__init__(f"{where}: {found}; {remedy}")
        self.where, self.found, self.remedy = str(where), found, remedy


class Interrupted(MedbenchError):
    """What was done so far stands, and another try goes on from it: memory or disk is full."""


class Extra(ImportError):
    """An optional library that is not installed: what needs it, and how to install it."""

    def __init__(self, needed: str, remedy: str) -> None:
        super().__init__(f"{needed}; {remedy}")
