"""What a job asks of a scheduler: host memory by the size of its checkpoint, time by its task and the size of model and data.

Generous round figures: a request that is too small costs a retry (which asks for twice as much), one that is too large only waits longer.
Nothing here changes a result.
"""

import contextlib
import json
from pathlib import Path

from medbench import config as configuration
from medbench import paths
from medbench.config import Config, GenerativeLora, Model, Probe
from medbench.jobs import tree
from medbench.jobs.stage import Needs
from medbench.models.checkpoint import WEIGHTS

TRACKED = False  # what a job asks of a scheduler is no result

BASE_MB = 4000  # Python, its libraries, images on their way
PER_WEIGHT = 1.3  # of the checkpoint's size: read, converted, moved to the device
UNKNOWN_MB = 20_000  # of a checkpoint whose size nobody stated: that of a 7B model
PROBE_MB = 3000  # features of a data set, and scikit-learn
UNKNOWN_ROWS = 20_000
LONGEST = 7 * 24 * 60  # min
_LEAST = {"pretrain": 30, "prompts": 30, "embed": 60, "adapt": 60, "predict": 60, "validate": 60}  # min: start, loading, a slow disk
# Seconds of a GPU for one sample: a constant, and one for each 10^9 parameters.
_ENCODED, _TRAINED = (0.01, 0.03), (0.03, 0.15)
ASKED_SECONDS = 15.0  # of a service that reasons, one question
_ANSWERED, _TAUGHT = (0.1, 0.15), (0.1, 0.3)


def model_job(config: Config, stage: str, names: dict[str, str], loads: bool, on_gpu: bool = True) -> Needs:
    """What one job asks for. `loads`: whether it loads its model at all. Time is twice what a data-centre GPU is expected to take."""
    memory = BASE_MB + PER_WEIGHT * weights_mb(config, names["model"]) if loads else PROBE_MB
    minutes = _LEAST[stage] + 2 * gpu_seconds(config, stage, names, loads) / 60
    return Needs(int(memory), min(int(minutes), LONGEST), config.models[names["model"]].gpus if loads and on_gpu else 0)


def weights_mb(config: Config, model: str) -> float:
    """Size of a model's checkpoint [MB]: of the files of a folder, else by its parameters: half precision, full for contrastive models."""
    entry = config.models[model]
    place = Path(configuration.checkpoint(config, model) or "")
    if entry.pretrain is not None or entry.kind == "baseline":
        return 0
    if place.is_dir():
        return sum(file.stat().st_size for file in tree.files_below(place) if file.suffix in WEIGHTS) / 1e6
    if entry.about.parameters is None:
        return (UNKNOWN_MB - BASE_MB) / PER_WEIGHT
    return entry.about.parameters * (4 if entry.kind == "contrastive" else 2) / 1e6


def test_rows(config: Config, dataset: str) -> int:
    """Rows of a test split: as the data set's card says, or its entry expects, or a guess."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads(paths.card(dataset).read_bytes())["splits"]["test"]["samples"])
    expected = config.datasets[dataset].expected
    return UNKNOWN_ROWS // 4 if expected is None else expected.test


def gpu_mb(model: Model, adapts: bool) -> float | None:
    """Memory of its GPUs that a model takes with one sample at a time [MB]: a rough guide; None where its size is not known.

    Weights in bfloat16, or quantised, and a quarter more for activations. Adapting, three quarters more: gradients of a sample reach
    through all layers; contrastive weights then are float32.
    """
    if model.about.parameters is None or model.kind not in ("contrastive", "generative"):
        return None
    width = 4 if adapts and model.kind == "contrastive" else (model.bits or 16) / 8
    return model.about.parameters * width / 1e6 * (1.75 if adapts else 1.25)


def gpu_seconds(config: Config, stage: str, names: dict[str, str], loads: bool) -> float:
    """Expected seconds of computing on a GPU of a data centre."""
    if stage not in ("embed", "adapt", "predict", "validate"):
        return 0
    model, data = config.models[names["model"]], config.datasets[names["dataset"]]
    train, test = (
        (UNKNOWN_ROWS, UNKNOWN_ROWS // 4) if data.expected is None else (data.expected.train + data.expected.val, data.expected.test)
    )
    if stage == "embed":
        return (train + test) * _each(_ENCODED, model)
    if model.kind == "remote":
        return test_rows(config, names["dataset"]) * ASKED_SECONDS / (model.endpoint.concurrency if model.endpoint else 1)
    if not loads:
        published = isinstance(mode := config.modes[names["mode"]], Probe) and mode.solver == "published"
        return train * (0.1 if published else 0.01) if stage == "adapt" else 0
    if stage in ("predict", "validate"):
        return test * _each(_ANSWERED if model.kind == "generative" else _ENCODED, model)
    recipe = configuration.recipe(config, names["model"], names["mode"])
    taught = isinstance(recipe, GenerativeLora)
    return train * getattr(recipe, "epochs", 1) * _each(_TAUGHT if taught else _TRAINED, model)


def _each(cost: tuple[float, float], model: Model) -> float:
    parameters = 0 if model.kind == "baseline" or model.pretrain else model.about.parameters or 7e9
    return cost[0] + cost[1] * parameters / 1e9 * (2 if model.bits else 1)
