"""Jobs in one process, which imports torch once: `python one_process.py <configfile> <JSON: [[stage, name, ...], ...]> [<file>]`.

With a file it is told which definitions of medbench each job really executed while its stage ran: JSON, `stage name/name` ->
`module:definition`. What an import executes is none of it.
"""

import ast
import dataclasses
import functools
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from medbench import cli, command, config
from medbench.jobs import rerun
from medbench.jobs.stage import Stage

PACKAGE = f"{rerun.PACKAGE}{os.sep}"


def watch(executed: dict[str, set[str]]) -> None:
    """From now on note what each stage executes."""
    plain = Stage.execute

    def execute(self: Stage, params: Any, *names: str, **told: Any) -> dict[str, Any]:
        found = executed.setdefault(f"{self.name} {'/'.join(names)}", set())
        return plain(dataclasses.replace(self, run=_watched(self.run, found)), params, *names, **told)

    Stage.execute = execute  # type: ignore[method-assign]


def _watched(run: Callable[..., Any], found: set[str]) -> Callable[..., Any]:
    seen = set[CodeType]()

    def note(frame: FrameType, event: str, given: Any) -> None:
        code = frame.f_code
        if event == "call" and code not in seen and _is_ours(code.co_filename) and not _is_import(frame):
            seen.add(code)
            found.update(_definitions(code))

    @functools.wraps(run)
    def watched(*given: Any) -> Any:
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            return run(*given)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]

    return watched


def _is_ours(file: str) -> bool:
    """A module, no template of the report: that has a name of the same kind when it runs."""
    return file.startswith(PACKAGE) and file.endswith(".py")


def _is_import(frame: FrameType | None) -> bool:
    """Whether a module of ours is being imported."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


def _definitions(code: CodeType) -> list[str]:
    """The top-level definitions in whose statement some code stands."""
    parts = Path(code.co_filename).relative_to(PACKAGE).with_suffix("").parts
    module = ".".join(("medbench", *(part for part in parts if part != "__init__")))
    parsed = rerun._module(module)
    assert parsed is not None, f"{code.co_filename} is a module"
    [place] = [place for place, lines in enumerate(_lines(code.co_filename)) if code.co_firstlineno in lines]
    return [f"{module}:{name}" for name, places in parsed.nodes.items() if place in places]


@functools.cache
def _lines(file: str) -> list[range]:
    """Of each statement of a module, decorators included."""
    found = []
    for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        found.append(range(first, (node.end_lineno or first) + 1))
    return found


def main() -> None:
    """Stops at the first job that fails."""
    loaded = config.from_files([Path("config/config.yaml"), Path(sys.argv[1])], Path())
    os.environ[command.RESOLVED] = str(cli.write_resolved(loaded))  # as a start of Snakemake does
    executed: dict[str, set[str]] = {}
    if sys.argv[3:]:
        watch(executed)
    for words in json.loads(sys.argv[2]):
        if code := cli.main(words):
            sys.exit(f"{' '.join(words)}: exit code {code}")
    if sys.argv[3:]:
        Path(sys.argv[3]).write_text(json.dumps({job: sorted(names) for job, names in executed.items()}))


if __name__ == "__main__":
    main()
