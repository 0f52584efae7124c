"""A server of chat completions: OpenAI, vLLM, SGLang, llama.cpp, `transformers serve`, Ollama, Gemini's compatible address."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from medbench.errors import MedbenchError
from medbench.models import remote_answerer
from medbench.models.answering import Prompt
from medbench.models.checkpoint import Source
from medbench.models.remote_answerer import RemoteAnswerer
from medbench.remote.endpoint import Reached
from medbench.remote.endpoints.openai import OpenAI


class Options(remote_answerer.Options):
    """As of every remote model."""

    budget: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"  # what the server calls the token budget


class ChatCompletions(RemoteAnswerer):
    """Greedy where the model takes a temperature: servers would take one from the checkpoint else."""

    options: ClassVar[type[remote_answerer.Options]] = Options

    def endpoint(self, reached: Reached) -> OpenAI:
        return OpenAI(reached)

    def parameters(self, max_new_tokens: int) -> dict[str, Any]:
        assert isinstance(self.chosen, Options)
        return {"temperature": 0, self.chosen.budget: max_new_tokens}

    def constrained(self, prompt: Prompt) -> dict[str, Any]:
        form = (
            {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(prompt.schema), "strict": True}}
            if prompt.schema
            else None
        )
        return {"response_format": form, "seed": prompt.round or None}


def check(options: dict[str, Any]) -> None:
    """Raises ValueError for options that cannot be used."""
    Options.model_validate(options)


def answerer(source: Source, change: Callable[[Any], None] | None = None) -> ChatCompletions:
    """Of a source. Raises MedbenchError for an adapter: it cannot be put into a model that runs elsewhere."""
    if change is not None:
        raise MedbenchError(f"model {source.checkpoint}", "runs elsewhere and takes no adapter", "ask it off the shelf (mode ots)")
    return ChatCompletions(source)
