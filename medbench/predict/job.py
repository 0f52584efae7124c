"""What a prediction is given."""

from typing import Any, NamedTuple


class Params(NamedTuple):
    """What the predictions follow from besides data, cached vectors and adapter. `source` is None where no model is loaded."""

    method: str  # module of medbench.predict
    task: str
    source: dict[str, Any] | None  # fields of medbench.models.checkpoint.Source
    classes: tuple[str, ...]
    reads: tuple[str, ...] = ()  # fields of Method
    adapted: bool = False  # an adapter is put into the model, or stands on its features
    asking: dict[str, Any] | None = None  # fields of medbench.models.asking.Asking, or of Choosing, where questions are asked
    deterministic: bool = False  # kernels of a GPU
    image: str = "own"  # of a question: its own, blank, shuffled, or none
    seed: int | None = None  # of the shuffling, and of the orders of options
