"""Whether the weights of a model lie whole on this disk, as its architecture's own file would ask for them; without the network."""

from pathlib import Path
from typing import NoReturn

from huggingface_hub import get_token

from medbench.config import Config, checkpoint, require_architecture, sources
from medbench.doctor import FAULT, OK, WARNING, Line, refused
from medbench.errors import MedbenchError
from medbench.jobs import archives, files, network, tree
from medbench.models import fetching
from medbench.models.checkpoint import PICKLES, SAFETENSORS, WEIGHTS, Checkpoint, Source, weight_files

TRACKED = False  # looks, and makes no result


AWAY = ("not in the local cache", "is not downloaded")
"""What the errors of weights say that are not on this disk at all."""


FETCHED = "a run fetches it, or `python -m medbench fetch --all RUN` before, where there is a network"


class _Looking(Checkpoint):
    """Finds the files, and loads nothing."""

    def found(self, path: Path) -> NoReturn:
        raise fetching.Done(path)


def folder(source: Source) -> Path:
    """Where a checkpoint lies whole on this disk. Raises MedbenchError where it does not."""
    assert source.checkpoint is not None, "a baseline has no checkpoint"
    where = f"checkpoint {source.checkpoint}"
    if "://" in source.checkpoint:
        unpacked = archives.marker(Path(source.checkpoint.rpartition("/")[2])).name  # the archive itself is gone then
        if not any(files.cache().glob(f"checkpoints/*/{unpacked}")):
            raise MedbenchError(where, "is not downloaded yet", "connect once, and run again")
    with network.offline():
        place: Path = fetching.asked(_Looking(source))
        for name, revision in source.companions.items():
            if not (place / name).is_dir():
                network.snapshot(name, revision, ["config.json"])
    for part in sorted({one.parent for one in tree.files_below(place) if one.suffix in WEIGHTS} or {place}):
        weight_files(part, (*SAFETENSORS, "open_clip_model.safetensors"), (*PICKLES, "open_clip_pytorch_model.bin"))
    return place


def look(config: Config, model: str) -> Line:
    """One model of a run: made here, at hand, or what keeps it away."""
    entry, subject = config.models[model], f"model {model}"
    if entry.checkpoint is None and entry.pretrain is None:
        return Line(OK, subject, "a baseline: it has no weights")
    if entry.pretrain is not None:
        made = Path(str(checkpoint(config, model))).is_dir()
        return Line(OK, subject, "pretrained already" if made else "is pretrained by the workflow: nothing to download")
    try:
        require_architecture(config, model, "doctor")
        if entry.kind == "remote":
            return Line(OK, subject, "answers behind an endpoint: it has no weights here")
        place = folder(Source(**sources.source(config, model)))
    except MedbenchError as error:
        if not any(said in error.found for said in AWAY):
            return refused(subject, error)
        page = f"https://huggingface.co/{entry.checkpoint}"
        if not entry.about.gated:
            return Line(WARNING, subject, f"{entry.checkpoint} is not cached", FETCHED)
        remedy = f"accept its licence at {page}, then `hf auth login`; {FETCHED}"
        if get_token():
            return Line(WARNING, subject, f"{entry.checkpoint} is gated, and not cached", remedy)
        return Line(FAULT, subject, f"{entry.checkpoint} is gated and not cached, and no token is there", remedy)
    return Line(OK, subject, f"its weights are whole in {place}")
