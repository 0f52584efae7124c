"""What is asked of an endpoint, and the key under which its answer is kept."""

import hashlib
import io
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from PIL import Image

from medbench.jobs.digests import canonical

FORMAT = 1
"""Of keys: raised when what stands in one is said otherwise, and all answers kept before would be asked again."""


class Picture(NamedTuple):
    """An RGB image as it is sent. `digest`: SHA-256 of its size and pixels, since two encoders write the same pixels in other bytes."""

    digest: str
    png: Callable[[], bytes]  # made when it is sent, so that a request in waiting holds no image
    detail: str | None = None  # how closely the service looks: auto, low, high, original


class Request:
    """A system text or none, then one message of texts and pictures. `parameters` stand in the body as they are.

    `name` is for errors: the sample. The key says nothing of addresses, API keys, time limits or code.
    """

    def __init__(
        self,
        kind: str,
        model: str,
        parts: tuple[str | Picture, ...],
        parameters: Mapping[str, Any],
        system: str = "",
        name: str = "request",
        round: int = 0,
    ) -> None:
        """`kind`: of the endpoint, as `openai`; `model`: the name by which it knows its model; `round`: tells equal requests apart."""
        self.kind, self.model, self.parts, self.parameters, self.system, self.name = kind, model, parts, parameters, system, name
        self.round = round

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that the answer follows from."""
        return hashlib.sha256(canonical([FORMAT, self.kind, self.model, self.words()]).encode()).hexdigest()

    def words(self) -> dict[str, Any]:
        """What is asked, pictures by their digests: stands in the store beside the answer."""
        parts = [part if isinstance(part, str) else {"image": part.digest, "detail": part.detail} for part in self.parts]
        asked = {"system": self.system, "parts": parts, "parameters": {name: _plain(value) for name, value in self.parameters.items()}}
        return {**asked, "round": self.round} if self.round else asked


def _plain(value: Any) -> Any:
    """1.0 is 1: a number written in another way is no other request."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def picture(image: Callable[[], Image.Image], detail: str | None = None) -> Picture:
    """Of an RGB image, which is decoded here for its digest and again when it is sent. A PNG of the pixels holds nothing else of a file."""
    shown = image()
    digest = hashlib.sha256(f"{shown.mode} {shown.size} ".encode() + shown.tobytes()).hexdigest()

    def png() -> bytes:
        stream = io.BytesIO()
        image().save(stream, "PNG", compress_level=1)  # a tenth larger than the best, and several times as fast
        return stream.getvalue()

    return Picture(digest, png, detail)
