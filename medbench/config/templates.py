"""What `config/templates.yaml` may say."""

from pydantic import Field, model_validator

from medbench.config.strict import Mark, Strict

TRACKED = False  # what is decided here reaches a job by its parameters


class Asking(Strict):
    """`config/templates.yaml`: how questions are put to generative models, and how long an answer may be. The same for all."""

    question: str = "{question}"
    yes_no: str = "{question} Answer yes or no."  # for a question that wants yes or no, judged by the question alone
    choices: str = "{question}\n\n{options}\n\nAnswer with the option's letter from the given choices directly."
    no_image: Mark = "No image is given. Guess what the right answer is."  # said before a lettered question by the wording `told`
    max_new_tokens: int = Field(32, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "Asking":
        for name, place in (("question", "question"), ("yes_no", "question"), ("choices", "question"), ("choices", "options")):
            if getattr(self, name).count(f"{{{place}}}") != 1:
                raise ValueError(f"`{name}` must hold {{{place}}} once, found {getattr(self, name)!r}")
        return self
