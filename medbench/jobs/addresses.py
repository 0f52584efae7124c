"""Addresses without their secrets: where credentials stand in one, how a variable holds them, and texts with none left in them."""

import os
import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from medbench.errors import MedbenchError

TRACKED = False  # what is refused or masked makes no result

VARIABLE = re.compile(r"\$\{(\w+)\}")
_ADDRESS = re.compile(r"\w[\w+.-]{0,30}://[^\s'\"<>]+")  # as long as a scheme may be: a long word is read once
SECRET_KEY = re.compile(r"sig|token|key|secret|pass|pwd|auth|cred|policy|session|jwt|hmac", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w+/=~-]{24,}")
_USER = re.compile(r"(?<=://)[^/\s]*@")
_QUERY = re.compile(r"(?<=[^\s?#])[?#][^\s'\"<>)]+")


def credentials(text: str) -> str | None:
    """What of an address in a text is secret and no variable, in words without it; None where nothing is."""
    for address in _ADDRESS.findall(text):
        try:
            parts = urlsplit(address)
        except ValueError:  # no address
            continue
        user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
        if VARIABLE.sub("", password if colon else user):  # alone, a name is a token
            return "a password before its host"
        for name, value in parse_qsl(f"{parts.query}&{parts.fragment}"):
            plain = VARIABLE.sub("", value)
            if plain and (SECRET_KEY.search(name) or _SECRET_VALUE.fullmatch(plain)):
                return f"what looks like a key in its `{name[:40]}`"
    return None


def host(address: str) -> str:
    """Whom a request to an address reaches: its host in lower case, without a port; empty for what is no address."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def expanded(address: str, where: str) -> str:
    """With the values of its variables, for the request alone. Raises MedbenchError for one that is not set."""
    for name in VARIABLE.findall(address):
        if not os.environ.get(name):
            raise MedbenchError(where, f"{address} needs the variable {name}, which is not set", f"export {name}=<its value>")
    begin = user.end() if (user := _USER.search(address)) else 0  # a password may hold what ends it there; a query is quoted already
    head = VARIABLE.sub(lambda found: quote(os.environ[found[1]], safe=""), address[:begin])
    return head + VARIABLE.sub(lambda found: os.environ[found[1]], address[begin:])


def masked(text: object, address: str = "") -> str:
    """A text in one line, without names, passwords and queries of addresses, and without the values of the variables of `address`."""
    line = " ".join(str(text).split())
    for name in VARIABLE.findall(address):
        value = os.environ.get(name, "")
        for form in filter(None, (value, quote(value), quote(value, safe=""), unquote(value))):  # as libraries write it
            line = line.replace(form, f"${{{name}}}")
    return _QUERY.sub("?...", _USER.sub("...@", line))
