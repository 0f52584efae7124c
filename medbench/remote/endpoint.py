"""What an endpoint is: it sends a request and reads the body that comes back. One file a protocol in `medbench/remote/endpoints/`."""

import importlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

from medbench.errors import MedbenchError
from medbench.jobs.addresses import expanded, masked
from medbench.remote.request import Request

QUOTED = 300
"""Characters of what a service says that an error holds."""
_DATED = r"(@[\w.-]+|-\d{4}-\d{2}-\d{2}|-\d{8})?"


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
    """A reply with the body that it was read from, and the service's name for the exchange."""

    body: dict[str, Any]
    reply: Reply
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


class Endpoint(ABC):
    """A service that answers requests."""

    kind: str

    def __init__(self, reached: Reached) -> None:
        self.reached, self.where = reached, masked(reached.url)

    @abstractmethod
    async def send(self, request: Request) -> Sent:
        """Raises Failed, Limited, Invalid or Stopped."""

    @abstractmethod
    def read(self, body: Mapping[str, Any]) -> Reply:
        """Raises Failed for a body that is no answer."""

    @abstractmethod
    async def close(self) -> None:
        """Connections end."""

    def address(self) -> str:
        """The base URL. Raises Stopped for a variable that is not set."""
        try:
            return expanded(self.reached.url, "the endpoint's url")
        except MedbenchError as error:
            raise Stopped(error.where, error.found, error.remedy) from None

    def secret(self) -> str | None:
        """The API key. Raises Stopped where its variable is not set."""
        if self.reached.key is None:
            return None
        if not (value := os.environ.get(self.reached.key, "").strip()):
            found = f"needs an API key, and the variable {self.reached.key} is not set"
            raise Stopped(self.where, found, f"export {self.reached.key}=<your key>; what is kept is not asked again")
        return value

    def require_model(self, reply: Reply, asked: str) -> None:
        """Raise Stopped where another model answered than was asked: a dated snapshot of the name is the same model."""
        name = reply.model.removeprefix("models/")
        if name != self.reached.returned_as and not re.fullmatch(re.escape(asked.removeprefix("models/")) + _DATED, name):
            remedy = "ask for a model that is still served; where it is the same one, write `returned_as` into `endpoint` of its entry"
            raise Stopped(self.where, f"{reply.model!r} answered, and {asked!r} was asked", remedy)

    def plain(self, said: object) -> str:
        """One short line without the key, whatever a service or library wrote into it."""
        text = masked(said)
        secret = os.environ.get(self.reached.key or "", "").strip()
        return (text.replace(secret, "...") if secret else text)[:QUOTED]


def required(library: str) -> ModuleType:
    """An optional library. Raises Stopped where it is not installed."""
    try:
        return importlib.import_module(library)
    except ImportError:
        raise Stopped("remote models", f"need {library}, which is not installed", "run `pip install 'medbench[remote]'`") from None
