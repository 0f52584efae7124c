"""YAML files of configurations, within limits of size, depth and values."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from medbench.errors import MedbenchError
from medbench.jobs import addresses, files, limits

TRACKED = False  # what is decided here reaches a job by its parameters

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """A YAML mapping; duplicate keys are errors, since the later one would silently win. Raises MedbenchError, also beyond limits."""
    if kind := files.irregular(path):
        raise MedbenchError(name, f"is {kind}, not a file", "give a file")
    if not path.exists():
        raise MedbenchError(name, "the file does not exist", "give an existing path")
    try:
        with files.written(path), path.open("rb") as stream:
            text = stream.read(limits.CONFIG_CHARACTERS + 1).decode("utf-8")
        _check_events(text, name)
        data = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:  # of YAML's own types: a date without a month
        found = " ".join(str(error).split())[: limits.QUOTED]
        raise MedbenchError(name, f"not readable as YAML: {found}", "fix it") from None
    if not isinstance(data, dict):
        raise MedbenchError(name, f"holds {type(data).__name__}, not a mapping", "see config/config.yaml")
    check_values(data, name)
    return data


def registry_file(root: Path, name: str) -> Path:
    """Where the file of a registry lies: relative to the Snakefile, or else to the working directory; variables and `~` are expanded."""
    named = os.path.expanduser(os.path.expandvars(name))
    return place if (place := root / named).exists() else Path(named)


def _check_events(text: str, name: str) -> None:
    """Raise MedbenchError for YAML that is nested too deeply or, its aliases written out, too large: before anything is made of it."""
    anchors, opened, sizes = [""], [0], dict[str, int]()  # of what is not closed yet: its anchor, its size so far; anchor -> size
    for event in yaml.parse(text, Loader=_UniqueKeys):
        anchor, size = getattr(event, "anchor", None) or "", limits.CONFIG_VALUE
        if isinstance(event, yaml.CollectionStartEvent):
            anchors.append(anchor)
            opened.append(size)
            _require_depth(len(opened) - 1, name)
            continue
        if isinstance(event, yaml.AliasEvent):
            if anchor in anchors:
                raise MedbenchError(name, f"its alias *{anchor} stands inside of what it stands for", "write it out")
            size = sizes.get(anchor, size)
        elif isinstance(event, yaml.ScalarEvent):
            size += len(event.value)
            sizes[anchor] = size
        elif isinstance(event, yaml.CollectionEndEvent):
            size = opened.pop()
            sizes[anchors.pop()] = size
        else:
            continue
        opened[-1] += size
        _require_size(opened[-1], name)


def check_values(data: Mapping[Any, Any], name: str) -> None:
    """Raise MedbenchError for values that no configuration needs and that would end in a traceback or on the screen later."""
    waiting: list[tuple[Any, str, int]] = [(data, "", 0)]
    size = 0
    while waiting:
        value, key, depth = waiting.pop()
        size += limits.CONFIG_VALUE + (len(value) if isinstance(value, str) else 0)
        _require_size(size, name)
        _require_depth(depth, name)
        if isinstance(value, Mapping):
            waiting += [(one, key, depth + 1) for one in value]
            waiting += [(one, f"{key}.{str(word)[:40]}".strip("."), depth + 1) for word, one in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(one, key, depth + 1) for one in value]
        elif isinstance(value, str) and (wrong := _CONTROL.search(value)):
            raise MedbenchError(name, f"{key}: holds the control character {wrong[0]!r}", "remove it")
        elif isinstance(value, str) and (secret := addresses.credentials(value)):
            found = f"{key}: an address holds {secret}, and configurations are copied into results"
            raise MedbenchError(name, found, "write it as ${NAME}, and export NAME=<its value> where you start")
        elif isinstance(value, int) and value.bit_length() > limits.INTEGER_BITS:
            raise MedbenchError(name, f"{key}: a number of {value.bit_length()} bits", f"give one of at most {limits.INTEGER_BITS}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise MedbenchError(name, f"{key}: {value} is no finite number", "give one")
        elif not isinstance(value, str | int | float | None):
            raise MedbenchError(name, f"{key}: holds a {type(value).__name__}", "give text, a number, a list or a mapping; quote a date")


def _require_depth(depth: int, name: str) -> None:
    if depth > limits.CONFIG_DEPTH:
        raise MedbenchError(name, f"is nested more than {limits.CONFIG_DEPTH} levels deep", "write it flatter")


def _require_size(size: int, name: str) -> None:
    if size > limits.CONFIG_CHARACTERS:
        found = (
            f"holds more than {limits.CONFIG_CHARACTERS} characters, with its aliases written out and {limits.CONFIG_VALUE} for each value"
        )
        raise MedbenchError(name, found, "use fewer aliases, or several files")


class _UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's is five times as fast
    """Safe YAML that refuses duplicate keys. A key that stands over a merged one (`<<: *anchor`) is no duplicate."""

    def flatten_mapping(self, node: Any) -> None:
        """Called for every mapping before its merges are put in; for one that is merged elsewhere again afterwards."""
        if not hasattr(node, "checked"):
            node.checked = True
            merge = "tag:yaml.org,2002:merge"
            keys = ["<<" if key.tag == merge else self.construct_object(key, deep=True) for key, _ in node.value]
            seen = set()
            for key in keys:
                if key in seen:  # one that is no text, number or date is refused by its type here
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
                seen.add(key)
        super().flatten_mapping(node)
