"""Pin the models of a registry: the hub's present commit for every checkpoint and companion that has none.

The registry's file is edited in place, line by line, so that its comments and its order stay. Where a run names a file of models of its
own, that is the one.

Example: python -m medbench lock-models
"""

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi

from medbench import command
from medbench import config as configuration
from medbench.config import Config, Model
from medbench.errors import MedbenchError
from medbench.jobs import files, network
from medbench.models.checkpoint import COMMIT


class Pinned(NamedTuple):
    """A repository that got its commit."""

    model: str
    repository: str
    commit: str


def lock(config: Config, path: Path) -> list[Pinned]:
    """Write commits into the models of the registry at `path`; what is pinned already stays. Returns what was added, in the file's order.

    Raises MedbenchError when the hub refuses or cannot be reached, or an entry is not written line by line; then nothing is written.
    """
    text, pinned = path.read_text(encoding="utf-8"), []
    for name in configuration.read_yaml(path, str(path)):
        entry = config.models[name]
        for repository, revision in _loose(entry).items():
            with network.errors(repository, revision, "model"):
                commit = str(HfApi().model_info(repository, revision=revision).sha)
            text = _written(text, name, repository, commit, repository == entry.checkpoint, path)
            pinned.append(Pinned(name, repository, commit))
    if pinned:
        with files.atomic(path) as aside:
            aside.write_text(text, encoding="utf-8")
            _require_same(configuration.read_yaml(path, str(path)), configuration.read_yaml(aside, str(path)), pinned, path)
    return pinned


def _loose(entry: Model) -> dict[str, str | None]:
    """Repositories of the hub without a commit."""
    found: dict[str, str | None] = {}
    named = entry.checkpoint if entry.has_file and entry.kind != "remote" else None
    if named and not named.startswith((".", "/", "~", "$")) and "://" not in named and not Path(named).is_dir():
        found[named] = entry.revision
    found |= entry.companions
    return {name: revision for name, revision in found.items() if not (revision and COMMIT.fullmatch(revision))}


def _written(text: str, name: str, repository: str, commit: str, main: bool, path: Path) -> str:
    """The registry's text with one commit more."""
    block = re.search(rf"(?m)^{re.escape(name)}:[ ]*\n(?:(?:[ #].*)?\n)+", text + "\n")
    line = (
        rf"^  checkpoint:[ ]*{re.escape(repository)}[ ]*(?:#.*)?\n(?:  revision:.*\n)?" if main else rf"^    {re.escape(repository)}:.*\n"
    )
    place = block and re.search(rf"(?m){line}", block[0])
    if not block or not place:
        wanted = "`revision`" if main else "its commit under `companions`"
        raise MedbenchError(path, f"the entry of {name} is not written line by line", f"add {wanted} by hand: {commit}")
    first = place[0].partition("\n")[0]
    new = f"{first}\n  revision: {commit}\n" if main else f"    {repository}: {commit}\n"
    begin = block.start() + place.start()
    return text[:begin] + new + text[begin + len(place[0]) :]


def _require_same(before: dict[str, Any], after: dict[str, Any], pinned: list[Pinned], path: Path) -> None:
    """Raise MedbenchError when an edit changed anything but the commits."""
    for model, repository, commit in pinned:
        entry = before[model]
        if repository == entry.get("checkpoint"):
            entry["revision"] = commit
        else:
            entry["companions"][repository] = commit
    if before != after:
        raise MedbenchError(path, "its lines are not what they seem", "add the commits by hand")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    command.add_config_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Do it."""
    settings = command.read_config(args)
    file = configuration.registry_file(command.ROOT, settings.run.registries.models)
    pinned = lock(settings, file)
    for one in pinned:
        print(f"{one.model}: {one.repository} at {one.commit}")
    print(f"wrote {len(pinned)} commits into {file}" if pinned else f"every model of {file} is pinned already")
