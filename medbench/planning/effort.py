"""How long jobs take: by finished jobs of the same stage and model where there are any, else by a probe of this machine.

Each cost below is a share of what the probe measures, as the demo had it on two cores: `start`, a Python process with what jobs without a
model import; `torch`, its import; `image`, one image through an encoder of the mini CLIP's size on one thread; a thread's float operations,
for models with a known number of parameters. So a slower or a busier machine makes all of them longer. On a GPU the rule of
`config/needs.py` stands.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from medbench import cells, paths, stages
from medbench import config as configuration
from medbench.config import Config, ContrastiveLora, GenerativeLora, Lora, Probe
from medbench.config.needs import gpu_seconds
from medbench.errors import MedbenchError
from medbench.jobs import warm
from medbench.planning import sizes
from medbench.planning.probe import REFERENCE, Speed

TRACKED = False  # a look ahead is no part of a result

GPU_FLOPS = 2e14
"""Of a data centre's GPU in bfloat16, for which `config/needs.py` counts."""
# Starts of a whole job without a model: imports and what it does; and for each row of its data set.
_WHOLE = {"pretrain": 2.2, "prepare": 1.0, "duplicates": 1.75, "score": 2.2, "interval": 1.8, "gaps": 2.0, "overlap": 2.0, "report": 10.0}
_EACH = {"duplicates": 1e-4, "score": 5e-4, "interval": 2e-4, "overlap": 2e-3}
_CELL = {"gaps": 0.3, "report": 0.17}  # starts for each cell of the run
_DRAWN, _READ = 0.05, 0.02  # starts to draw an image of a phantom, to read and check one of a file
_DECODED = {True: 0.0045, False: 0.015}  # starts to decode an image once: a phantom's, a photograph of usual size
_EMBED, _PROMPTS, _PROBED, _PREDICT, _LORA = 2.5, 2.2, 6.5, 2.0, 3.0  # starts of such a job, torch's import left out
_FITTED = {True: 0.003, False: 0.014}  # starts of a probe's search for each row: on a mini model's few features, on others'
_PUBLISHED = 0.4  # the same by the study's recipe
_TRAINED = 3.0  # forward passes in a training step of one sample
_IMAGE, _QUESTION = 1.75, 17.0  # an image, a question to a mini model, in images of the small encoder
_TOKENS = {"contrastive": 50, "generative": 800}  # of an image, or of an image with question and answer
_FORKED, _FORKED_PROBE = 0.7, 3.5  # starts that a fork saves, beside torch: libraries of every job, scikit-learn
_IMPORTS = 2.5  # imports of torch: those of a model job that finds nothing warm
_SNAKEMAKE, _JOB = 30.0, 0.12  # starts that Snakemake itself takes, and for each job


class Cost(NamedTuple):
    """Seconds that a job takes whatever its data, and those that grow with them."""

    fixed: float
    work: float


class Effort(NamedTuple):
    """Expected seconds of a job: here (None where nobody knows), on a data centre's GPU where it asks for one, and by what."""

    stage: str
    names: tuple[str, ...]
    seconds: float | None
    gpu_seconds: float
    on_gpu: bool
    source: str
    """records | probe | rule | unknown."""


class Total(NamedTuple):
    """Of a run: wall time here [s], and hours of CPU cores and of GPUs; jobs of which nothing is known, and those that only download."""

    seconds: float
    cpu_hours: float
    gpu_hours: float
    n_unknown: int
    n_downloads: int


class Estimator:
    """Estimates for the jobs of one configuration. `speed`: None without a probe; `n_gpus`: those that are visible."""

    def __init__(self, config: Config, speed: Speed | None, n_gpus: int) -> None:
        self.config, self.speed, self.n_gpus = config, speed or REFERENCE, n_gpus
        self.is_probed = speed is not None
        self.size, self.n_cells = cache(lambda dataset: sizes.of(config, dataset)), len(cells.grid(config))
        self.records = run_records()
        self.corrections = self._corrections(self.records)

    def of(self, stage: str, names: tuple[str, ...]) -> Effort:
        """Of one job. Finished ones of the same stage and model, else of the stage and a model as small or large, correct the rule."""
        named = dict(zip(stages.get(stage).keys, names, strict=True))
        if stage == "fetch":
            return Effort(stage, names, 0.0, 0.0, False, "unknown")
        if stage in ("calibrate", "judge") or self._is_remote(stage, named):  # judging has no rule
            return Effort(stage, names, None, 0.0, False, "unknown")
        asks = self._asks(stage, names)
        gpu = gpu_seconds(self.config, stage, named, True) if asks else 0.0
        on_gpu = bool(asks and self.n_gpus)
        cost = self._on_gpu(gpu) if on_gpu else self._on_cpu(stage, named, self._is_warm(stage))
        kin = next((key for key in _kin(self.config, stage, names, on_gpu) if key in self.corrections), None)
        if kin is not None:
            fixed, work = self.corrections[kin]
            return Effort(stage, names, cost.fixed * fixed + cost.work * work, gpu, on_gpu, "records")
        seconds = sum(cost)
        if on_gpu:
            return Effort(stage, names, seconds, gpu, True, "probe" if self.speed.gpu_flops else "rule")
        return Effort(stage, names, seconds if self.is_probed else None, gpu, False, "probe" if self.is_probed else "unknown")

    def total(self, efforts: Iterable[Effort], cores: int) -> Total:
        """CPU jobs share the cores, GPU jobs the GPUs, and Snakemake does its part; no job waits for another longer than that."""
        found = list(efforts)
        cpu = sum(one.seconds or 0 for one in found if not one.on_gpu)
        gpu = sum(one.seconds or 0 for one in found if one.on_gpu)
        own = self.speed.start * (_SNAKEMAKE + _JOB * len(found)) if found else 0.0
        if any(self._is_warm(one.stage) and one.stage in warm.STAGES for one in found):
            own += _IMPORTS * self.speed.torch / cores  # once
        longest = max((one.seconds or 0 for one in found), default=0.0)
        wall = own + max(cpu / cores, gpu / max(self.n_gpus, 1), longest)
        unknown = sum(one.seconds is None for one in found)
        return Total(wall, cpu / 3600, sum(one.gpu_seconds for one in found) / 3600, unknown, sum(one.stage == "fetch" for one in found))

    def _asks(self, stage: str, names: tuple[str, ...]) -> bool:
        """Whether a job wants a GPU, and would gain by it."""
        return stages.get(stage).needs(self.config, *names).gpus > 0 and self.config.models[names[1]].pretrain is None

    def _is_remote(self, stage: str, named: Mapping[str, str]) -> bool:
        """Whether a job waits for an endpoint."""
        return stage in ("predict", "validate") and self.config.models[named["model"]].kind == "remote"

    def _on_gpu(self, rule: float) -> Cost:
        factor = GPU_FLOPS / self.speed.gpu_flops if self.speed.gpu_flops else 1.0
        return Cost(self.speed.start + _IMPORTS * self.speed.torch, rule * factor)

    def _is_warm(self, stage: str) -> bool:
        return stage not in warm.ALONE and self.config.run.warm and not self.n_gpus

    def _on_cpu(self, stage: str, named: Mapping[str, str], is_warm: bool) -> Cost:
        """One core's seconds."""
        found = self._by_stage(stage, named, is_warm)
        if not is_warm:
            return found
        probed = stage == "adapt" and isinstance(configuration.recipe(self.config, named["model"], named["mode"]), Probe)
        return found._replace(fixed=max(found.fixed - self.speed.start * (_FORKED + _FORKED_PROBE * probed), 0.0))

    def _by_stage(self, stage: str, named: Mapping[str, str], is_warm: bool) -> Cost:
        speed = self.speed
        if "model" not in named or stage in ("score", "interval"):
            return self._without_model(stage, named)
        entry = self.config.models[named["model"]]
        loads = entry.kind in ("contrastive", "generative") and (stage != "predict" or self._loads(named))
        imports = _IMPORTS * speed.torch if loads and not is_warm else 0.0
        if stage == "pretrain":
            fixed, work = self._pretrained(named["model"])
            return Cost(imports + fixed, work)
        if stage == "prompts":
            return Cost(imports + _PROMPTS * speed.start, 0.0)
        size, is_drawn = self.size(named["dataset"]), self.config.datasets[named["dataset"]].layout.startswith("phantom")
        decoded, forward = _DECODED[is_drawn] * speed.start, self._forward(named) if loads else 0.0
        if stage == "embed":
            return Cost(imports + (_EMBED if loads else 1.0) * speed.start, size.images * (decoded + forward))
        if stage == "adapt":
            fixed, work = self._adapted(named, size, decoded)
            return Cost(imports + fixed, work)
        rows = size.test if stage == "predict" else size.train / 5
        return Cost(imports + (_LORA if loads else _PREDICT) * speed.start, rows * (decoded + forward) if loads else 0.0)

    def _without_model(self, stage: str, named: Mapping[str, str]) -> Cost:
        config, work = self.config, _CELL.get(stage, 0.0) * self.n_cells
        datasets = [named["dataset"]] if "dataset" in named else config.run.datasets if stage == "overlap" else []
        for one in map(self.size, datasets):
            rows = one.test if stage in ("score", "interval") else one.images if stage == "overlap" else one.train + one.test
            work += _EACH.get(stage, 0.0) * rows
        if stage == "prepare":
            is_drawn = config.datasets[named["dataset"]].layout.startswith("phantom")
            work += (_DRAWN if is_drawn else _READ) * self.size(named["dataset"]).images
        return Cost(self.speed.start * _WHOLE[stage], self.speed.start * work)

    def _pretrained(self, model: str) -> Cost:
        if stages.get("pretrain").params(self.config, model).files:  # it comes with medbench
            return Cost(_WHOLE["pretrain"] * self.speed.start, 0.0)
        made = self.config.models[model].pretrain
        assert made is not None
        each = self.speed.image * (_QUESTION if self.config.models[model].kind == "generative" else _IMAGE)
        work = self.speed.start * _DRAWN * made.pool_size + made.steps * made.batch_size * _TRAINED * each
        return Cost(self.speed.start * _LORA, work)

    def _loads(self, named: Mapping[str, str]) -> bool:
        """Whether `predict` loads the model: to ask it, or once its tower is adapted."""
        is_asked = self.config.models[named["model"]].kind == "generative"
        return is_asked or isinstance(self.config.modes[named["mode"]], Lora)

    def _forward(self, named: Mapping[str, str]) -> float:
        """One core's seconds for one image, or one question."""
        entry = self.config.models[named["model"]]
        if entry.pretrain is not None or entry.about.parameters is None:
            return self.speed.image * (_QUESTION if entry.kind == "generative" else _IMAGE)
        return 2 * entry.about.parameters * _TOKENS.get(entry.kind, 50) / self.speed.flops

    def _adapted(self, named: Mapping[str, str], size: sizes.Size, decoded: float) -> Cost:
        entry, start = self.config.models[named["model"]], self.speed.start
        recipe = configuration.recipe(self.config, named["model"], named["mode"])
        if isinstance(recipe, Probe):
            each = _PUBLISHED if recipe.solver == "published" else _FITTED[entry.pretrain is not None]
            rows = size.train if recipe.labels is None else min(size.train, recipe.labels * 2) * recipe.draws
            return Cost(start * _PROBED, start * each * rows)
        assert isinstance(recipe, ContrastiveLora | GenerativeLora)
        n_val = size.train * 0.2
        seen = (size.train - n_val) * recipe.epochs + n_val * (recipe.epochs + 1)
        passes = (size.train - n_val) * recipe.epochs * _TRAINED + n_val * (recipe.epochs + 1)
        return Cost(start * _LORA, seen * decoded + passes * self._forward(named))

    def _corrections(self, records: Sequence["Recorded"]) -> dict[tuple[str, ...], Cost]:
        """Kin -> by what the expected costs are multiplied.

        Jobs that mostly worked tell how fast this machine works. Those that mostly started tell nothing of larger data.
        """
        sums: dict[tuple[str, ...], list[float]] = {}
        for one in records:
            on_gpu = one.device.startswith("cuda")
            try:
                named = dict(zip(stages.get(one.stage).keys, one.names, strict=True))
                is_rule = on_gpu and self._asks(one.stage, one.names)
                rule = gpu_seconds(self.config, one.stage, named, True) if is_rule else 0.0
                cost = self._on_gpu(rule) if is_rule else self._on_cpu(one.stage, named, one.is_forked)
                keys = _kin(self.config, one.stage, one.names, on_gpu)
            except (KeyError, ValueError, IndexError, ModuleNotFoundError, MedbenchError):  # of what no registry has any more
                continue
            for key in keys:
                sums[key] = [before + more for before, more in zip(sums.get(key, [0.0] * 3), (one.seconds, *cost), strict=True)]
        return {key: _factors(*values) for key, values in sums.items()}


def _factors(recorded: float, fixed: float, work: float) -> Cost:
    if work >= fixed:
        return Cost(recorded / (fixed + work), recorded / (fixed + work))
    return Cost(max(recorded - work, 0.0) / fixed, 1.0)


def _kin(config: Config, stage: str, names: tuple[str, ...], on_gpu: bool) -> list[tuple[str, ...]]:
    """Which finished jobs tell of this one, the most alike first: of its model and mode, of its model, of models made here or elsewhere."""
    device = "gpu" if on_gpu else "cpu"
    keys = stages.get(stage).keys
    if "model" not in keys:
        return [(stage, device)]
    model = names[keys.index("model")]
    kind = "baseline" if config.models[model].kind == "baseline" else "small" if config.models[model].pretrain else "large"
    rest = names[keys.index("model") + 1 :]
    if stage in ("score", "interval"):
        return [(stage, device)]
    same = [(stage, device, model, *rest), (stage, device, model)] if kind == "large" else [(stage, device, model, *rest)]
    return [*same, *([(stage, device, kind, *rest)] if kind != "large" else [])]


class Recorded(NamedTuple):
    """What a finished job took, by its run record."""

    stage: str
    names: tuple[str, ...]
    seconds: float
    device: str
    is_forked: bool
    peak_gpu_mb: float | None


def run_records(folder: Path = paths.RESULTS) -> list[Recorded]:
    """Of all jobs that ended here, whatever their run."""
    found = []
    for path in sorted(folder.rglob("*.run.json")):
        try:
            one = json.loads(path.read_bytes())
            said = (str(one.get("device", "cpu")), one.get("forked") is True, one.get("peak_gpu_mb"))
            found.append(Recorded(one["stage"], tuple(one["names"]), float(one["seconds"]), *said))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
