"""Weights of 4 or 8 bits, by bitsandbytes: the settings that transformers loads them with."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import torch

from medbench.errors import MedbenchError
from medbench.models.hub import DECODER

NOT_IN_DECODER = rf"(?!.*{re.escape(DECODER)}).*"
"""Regular expression over names of layers, from their start."""


def settings(path: Path, bits: int, dtype: torch.dtype) -> Any:
    """4 bits as QLoRA has them (NF4), 8 bits as LLM.int8(); all that is not in the decoder's layers keeps its numbers.

    Raises MedbenchError where bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MedbenchError(path, f"{bits}-bit weights need bitsandbytes, which is not installed", "pip install bitsandbytes")
    import bitsandbytes  # noqa: F401 - transformers does; named here, so that its version is recorded
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[NOT_IN_DECODER],
    )  # fmt: skip
