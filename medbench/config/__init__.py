"""Registries and run configuration, validated. The only place with defaults; `config/schema.json` is generated from here.

A *registry* (`config/{models,datasets,modes}.yaml`) says what is possible, a *run* (`config/config.yaml`, `config/nano.yaml`, ...)
selects from it by lists. Everything under `about` is for people: it is shown, and never reaches a job.

Keys and defaults stand in the module that is called as the file: `models`, `datasets`, `modes`, `templates`; of a run in `runs`.
`reading` reads YAML, `loading` makes a `Config` (`resolved`) of it, `selection` checks what the run chooses, `complaints` words mistakes.
"""

from medbench.config.complaints import one_line
from medbench.config.datasets import Addresses, Dataset, Hub, Manual, RemoteFile, is_fetched, layouts
from medbench.config.loading import dump, from_files, from_resolved, load, require_whole, schema
from medbench.config.models import Model, Pretrain, architectures, can_run
from medbench.config.modes import ContrastiveLora, GenerativeLora, Lora, Mode, Probe, ZeroShot, recipe_kind
from medbench.config.reading import read_yaml, registry_file
from medbench.config.resolved import Config, checkpoint, checkpoint_digest, expand_raw_dir, raw_dir, recipe
from medbench.config.runs import Judging, NearDuplicates, Run
from medbench.config.selection import licence, nearest_modality, require_architecture, require_layout, require_writer, unsent
from medbench.config.strict import Strict
from medbench.config.templates import Asking

TRACKED = False  # what is decided here reaches a job by its parameters

__all__ = [
    "Addresses",
    "Asking",
    "Config",
    "ContrastiveLora",
    "Dataset",
    "GenerativeLora",
    "Hub",
    "Judging",
    "Lora",
    "Manual",
    "Mode",
    "Model",
    "NearDuplicates",
    "Pretrain",
    "Probe",
    "RemoteFile",
    "Run",
    "Strict",
    "ZeroShot",
    "architectures",
    "can_run",
    "checkpoint",
    "checkpoint_digest",
    "dump",
    "expand_raw_dir",
    "from_files",
    "from_resolved",
    "is_fetched",
    "layouts",
    "licence",
    "load",
    "nearest_modality",
    "one_line",
    "raw_dir",
    "read_yaml",
    "recipe",
    "recipe_kind",
    "registry_file",
    "require_architecture",
    "require_layout",
    "require_whole",
    "require_writer",
    "schema",
    "unsent",
]
