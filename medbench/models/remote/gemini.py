"""Gemini by its own protocol (google-genai). By chat completions it is architecture `openai` with its compatible address."""

from collections.abc import Callable
from typing import Any

from medbench.errors import MedbenchError
from medbench.models.checkpoint import Source
from medbench.models.remote_answerer import Options, RemoteAnswerer
from medbench.remote.endpoint import Reached
from medbench.remote.endpoints.gemini import Gemini


class GeminiAnswerer(RemoteAnswerer):
    """Its token budget counts thoughts: `max_new_tokens` of the entry is the thinking budget and the answer's together."""

    def endpoint(self, reached: Reached) -> Gemini:
        return Gemini(reached)

    def parameters(self, max_new_tokens: int) -> dict[str, Any]:
        return {"temperature": 0, "max_output_tokens": max_new_tokens}


def check(options: dict[str, Any]) -> None:
    """Raises ValueError for options that cannot be used."""
    if Options.model_validate(options).detail is not None:
        raise ValueError("`detail` is of chat completions: give `parameters: {media_resolution: ...}`")


def answerer(source: Source, change: Callable[[Any], None] | None = None) -> GeminiAnswerer:
    """Of a source. Raises MedbenchError for an adapter: it cannot be put into a model that runs elsewhere."""
    if change is not None:
        raise MedbenchError(f"model {source.checkpoint}", "runs elsewhere and takes no adapter", "ask it off the shelf (mode ots)")
    return GeminiAnswerer(source)
