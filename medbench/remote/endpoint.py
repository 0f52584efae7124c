"""What an endpoint is: it sends a request and reads the body that comes back. One file a protocol in `medbench/remote/endpoints/`."""

import email.utils
import importlib
import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple

from medbench.errors import MedbenchError
from medbench.jobs.addresses import expanded, host, masked
from medbench.remote.request import Request

QUOTED = 300
"""Characters of what a service says that an error holds."""
_DATED = r"(@[\w.-]+|-\d{4}-\d{2}-\d{2}|-\d{3,4}|-\d{8})?"


class Usage(NamedTuple):
    """Tokens of one answer. `output` holds `reasoning`; `input` holds `cached`."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


class Reply(NamedTuple):
    """What a body says.

    `finish_reason`: stop, length, repetition, refusal (the model will not answer; `text` says so) or filter (the service held it back).
    """

    text: str
    finish_reason: str
    usage: Usage
    model: str  # that answered, by its own name
    thoughts: str = ""  # kept apart, and never scored
    fingerprint: str = ""  # of the back end
    reason: str = ""  # the service's own word for how it ended

    @property
    def is_final(self) -> bool:
        """Whether asking again would be for nothing: an empty or filtered answer may come out otherwise."""
        return self.finish_reason != "filter" and bool(self.text.strip())


class Sent(NamedTuple):
    """A body that came back, and the service's name for the exchange."""

    body: dict[str, Any]
    request_id: str = ""


class Failed(Exception):
    """This request got no answer; another try may. No exception holds a header, so none holds a key."""

    def __init__(self, found: str, wait: float | None = None, status: int | None = None) -> None:
        """`wait`: seconds that the service asks for; `status`: of HTTP."""
        super().__init__(found)
        self.found, self.wait, self.status = found, wait, status


class Limited(Failed):
    """So did every other request now: more are sent than the service takes."""


class Invalid(Failed):
    """The service does not take this request; another try will not help."""


class Stopped(MedbenchError):
    """No request will be answered until a person does something."""


class Reached(NamedTuple):
    """Where a service is and under which conditions; nothing here changes an answer."""

    url: str  # `${VARIABLE}` is expanded when the first request is sent
    key: str | None = None  # name of the environment variable that holds the API key; None where none is asked for
    returned_as: str | None = None  # what the service calls the model, where that is another name
    retired_on: str | None = None  # YYYY-MM-DD: from then on nothing is asked
    timeout: float = 600.0  # s a try
    send_to: Sequence[str] = ("*",)  # hosts that may be asked


class Retired(Stopped):
    """The service has shut the model down, and not all of its answers are kept."""


class Endpoint(ABC):
    """A service that answers requests."""

    kind: str

    def __init__(self, reached: Reached) -> None:
        self.reached, self.where = reached, masked(reached.url)

    @abstractmethod
    def payload(self, request: Request) -> Any:
        """The words and pictures as the client takes them: here images are encoded."""

    @abstractmethod
    async def send(self, request: Request, payload: Any) -> Sent:
        """What came back, whether it is an answer or not. Raises Failed, Limited, Invalid or Stopped where nothing did."""

    @abstractmethod
    def usage(self, body: Mapping[str, Any]) -> Usage:
        """Tokens that a body says were used, also one that is no answer; 0 where the service does not count."""

    @abstractmethod
    def read(self, body: Mapping[str, Any]) -> Reply:
        """Raises Failed for a body that is no answer."""

    @abstractmethod
    async def close(self) -> None:
        """Connections end."""

    @abstractmethod
    def batches(self, model: str) -> Any:
        """The service's `medbench.remote.batching.Batches` of a model."""

    def shutdown_date(self, model: str) -> str | None:
        """YYYY-MM-DD, where the service has one and says so. Raises Failed or Stopped."""
        return None

    def address(self) -> str:
        """The base URL. Raises Stopped for a variable that is not set, a host that may not be asked and, Retired, a model that is gone."""
        if is_past(self.reached.retired_on):
            found = f"the model was shut down on {self.reached.retired_on}, and not all of its answers are kept"
            raise Retired(self.where, found, "its cells stay absent: run again for the report")
        try:
            url = expanded(self.reached.url, "the endpoint's url")
        except MedbenchError as error:
            raise Stopped(error.where, error.found, error.remedy) from None
        if not url.startswith(("http://", "https://")) or not host(url):
            raise Stopped(self.where, "is no address of a server", "write http:// or https:// and its host first")
        if not {host(url), "*"} & set(self.reached.send_to):
            found = f"{host(url)} is none of the services that the data set may be sent to"
            raise Stopped(self.where, found, f"read its terms, then add `send_to: [{host(url)}]` to its entry")
        return url

    def secret(self) -> str | None:
        """The API key. Raises Stopped where its variable is not set, or holds what no header can: errors of a client would quote it."""
        if self.reached.key is None:
            return None
        if not (value := os.environ.get(self.reached.key, "").strip()):
            found = f"needs an API key, and the variable {self.reached.key} is not set"
            raise Stopped(self.where, found, f"export {self.reached.key}=<your key>; what is kept is not asked again")
        if not re.fullmatch(r"[!-~]+", value):
            found = f"the variable {self.reached.key} holds spaces, more than one line or special characters, as no key does"
            raise Stopped(self.where, found, f"export {self.reached.key}=<your key alone>")
        return value

    def require_model(self, reply: Reply, asked: str) -> None:
        """Raise Stopped where another model answered than was asked: a dated snapshot of the name is the same model.

        No model answers a question that the service held back.
        """
        if reply.finish_reason == "filter" and not reply.model:
            return
        name = reply.model.removeprefix("models/")
        if name != self.reached.returned_as and not re.fullmatch(re.escape(asked.removeprefix("models/")) + _DATED, name):
            remedy = "ask for a model that is still served; where it is the same one, write `returned_as` into `endpoint` of its entry"
            raise Stopped(self.where, f"{reply.model!r} answered, and {asked!r} was asked", remedy)

    def refused(
        self, status: int, code: str, said: object, headers: Mapping[str, str], seconds: float | None = None, is_spent: bool = False
    ) -> Exception:
        """What a status other than success means.

        `code`: the service's word for it; `seconds`: to wait, where the body says so; `is_spent`: no money is left.
        """
        if 300 <= status < 400:
            found = f"status {status}: it has moved to {self.plain(headers.get('location', 'nowhere'))}, where nothing was sent"
            return Stopped(self.where, found, "write the new address into `url` of its entry, and its host into `send_to` of the data set")
        found, seconds = f"status {status}{f' {code}' if code else ''}: {self.plain(said)}", wait(headers) if seconds is None else seconds
        if is_spent or status == 402:
            return Stopped(self.where, found, "add credit or raise the limit of the account, then run again: what was answered is kept")
        if status in (401, 403):
            return Stopped(self.where, found, "set the variable of its key to one that may use this model, then run again")
        if status == 404:
            return Stopped(self.where, found, "check the address and the name of the model, or note in its entry that it is `retired_on`")
        if status == 429 or (status in (503, 529) and seconds):
            return Limited(found, seconds, status)
        if status in (408, 409) or status >= 500:
            return Failed(found, seconds, status)
        if status < 300:  # an error under a status of success
            return Failed(found, None, status)
        return Invalid(found, None, status)

    def plain(self, said: object) -> str:
        """One short line without the key, whatever a service or library wrote into it."""
        text = masked(said, self.reached.url)
        secret = os.environ.get(self.reached.key or "", "").strip()
        return (text.replace(secret, "...") if secret else text)[:QUOTED]


def is_past(day: str | None) -> bool:
    """Whether a day, YYYY-MM-DD, has come."""
    return day is not None and day <= time.strftime("%Y-%m-%d")


def required(library: str) -> ModuleType:
    """An optional library. Raises Stopped where it is not installed."""
    try:
        return importlib.import_module(library)
    except ImportError:
        raise Stopped("remote models", f"need {library}, which is not installed", "run `pip install -e '.[remote]'` in the clone") from None


def count(value: object) -> int:
    """A number of tokens; 0 for what is none."""
    return value if type(value) is int and value >= 0 else 0


def wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a service asks to wait; None where it does not say."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        with suppress(ValueError):
            return max(0.0, float(value) * unit)
        with suppress(ValueError):
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def parsed(text: str) -> dict[str, Any] | None:
    """An object of JSON, or None."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
