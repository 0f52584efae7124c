"""Classes of entries: what all of them keep to, and the kinds of texts in them."""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from medbench import paths
from medbench.jobs import limits

TRACKED = False  # what is decided here reaches a job by its parameters


def require_slug(name: str) -> str:
    """The name, or ValueError for one that is too long or not made of lower-case letters, digits, dots and dashes."""
    if len(name) > limits.NAME:
        raise ValueError(f"a name has at most {limits.NAME} characters, not {len(name)}")
    return paths.slug(name)


def _inside(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("must lie inside the folder of the data set")
    return path


Slug = Annotated[str, AfterValidator(require_slug)]
Inside = Annotated[str, AfterValidator(_inside)]
Mark = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Unknown keys are errors, and so are infinite numbers; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
