"""fetch: the official files of a data set, downloaded, resumed, verified and unpacked; or found where a person put them.

Its record names revision, files and digests. Raw files are no result: they lie below MEDBENCH_DATA, and deleting `results/` keeps them.

Example: python -m medbench fetch slake
Example: python -m medbench fetch --all open
"""

import json
from typing import Any, NamedTuple

from medbench import paths
from medbench.config import Config, sources
from medbench.datasets import layouts
from medbench.errors import MedbenchError
from medbench.jobs import files, partial
from medbench.jobs.stage import Needs, Stage


class Params(NamedTuple):
    """Where the files come from, and the layout that says whether they are there."""

    source: dict[str, Any]
    layout: str
    options: dict[str, Any]
    task: str


def params(config: Config, dataset: str) -> Params:
    """Raises MedbenchError for a data set whose entry names no source."""
    entry = config.datasets[dataset]
    if entry.source is None:
        raise MedbenchError(f"data set {dataset}", "its entry names no source", "give `source`, or a raw_dir")
    return Params(entry.source.model_dump(mode="json"), entry.layout, entry.options, entry.task)


def run(params: Params, dataset: str) -> dict[str, Any]:
    """Fill `paths.raw(dataset)` and write `paths.fetched(dataset)`. Raises MedbenchError for what is missing; what has arrived stays."""
    from medbench.jobs import fetching

    folder, where, kind = paths.raw(dataset), f"data set {dataset}", params.source["kind"]
    with partial.hold(paths.partial(f"fetch-{dataset}"), f"fetch {dataset}"):
        if kind == "manual":
            found = _by_hand(params, dataset)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            found = (fetching.from_hub if kind == "hub" else fetching.from_addresses)(params.source, folder, where)
            _index(params, dataset)
        record = {"dataset": dataset, "source": kind, **found._asdict()}
        with files.atomic(paths.fetched(dataset)) as aside:
            aside.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {"revision": found.revision, "files": len(found.files)}


def _index(params: Params, dataset: str) -> list[str]:
    """Names of the files that the layout needs first. Raises MedbenchError when one is missing."""
    folder = paths.raw(dataset)
    options = layouts.read_options(params.layout, params.options, dataset)
    source = layouts.Source(dataset, params.task, folder, (), 0)
    return [str(path.relative_to(folder)) for path in layouts.load_layout(params.layout).index_files(options, source)]


def _by_hand(params: Params, dataset: str) -> Any:
    from medbench.jobs import fetching
    from medbench.jobs.digests import file_digest

    folder = paths.raw(dataset)
    if not folder.is_dir() or not any(folder.iterdir()):
        raise MedbenchError(f"data set {dataset}", *sources.application(params.source, dataset))
    names = _index(params, dataset)  # says itself what is missing
    return fetching.Fetched(None, {name: f"sha256:{file_digest(folder / name)}" for name in names if (folder / name).is_file()})


STAGE = Stage(
    name="fetch",
    keys=("dataset",),
    params=params,
    outputs=lambda dataset: [paths.fetched(dataset)],
    run=run,
    uses=lambda params: (layouts.module_name(params.layout),),
    needs=lambda config, *names: Needs(memory_mb=1000, minutes=720, network=True),
)
