"""Libraries that a model job imports only where it uses them: torch's compiler and exporter, torchvision's models, and others.

transformers, torchvision and torch's optimisers import `torch._dynamo` to mark functions for `torch.compile`; torch imports its exporter,
torchvision its own models and data sets; transformers imports `scipy.optimize` for losses of object detection, an attention that it
would compile, and whatever of `torch.distributed` spreads a model over processes. Nothing here calls them, and together they take
longer to import than torch itself. Stand-ins give what is marked back as it is, and bring the real library for anything else
that is asked of them: one that changes makes a job slower, not wrong.
"""

import contextlib
import importlib
import marshal
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from medbench.errors import MedbenchError
from medbench.jobs import files
from medbench.jobs.digests import digest

TRACKED = False  # when a library is imported decides no result

COMPILER, OPTIMISERS, ATTENTION = "torch._dynamo", "scipy.optimize", "torch.nn.attention.flex_attention"
KERNELS = "triton.runtime.jit"
UNASKED = ("torch.export", "torchvision.datasets", "torchvision.models", "torchvision.ops")
"""Imported by the package that they stand in, and by nothing else here."""
MARKS = frozenset(("allow_in_graph", "assume_constant_result", "disable", "graph_break"))  # what the compiler alone heeds
CALLED: dict[str, tuple[str, ...]] = {
    f"{COMPILER}.utils": ("is_compile_supported",),
    f"{COMPILER}._trace_wrapped_higher_order_op": ("TransformGetItemToIndex",),
    OPTIMISERS: ("linear_sum_assignment",),
    "torchvision.ops.boxes": ("box_iou",),
    ATTENTION: ("AuxRequest", "create_block_mask", "flex_attention"),
}
"""Module -> functions and classes that others import of it at their own import, and call later, if ever."""
CLASSES: dict[str, tuple[str, ...]] = {ATTENTION: ("BlockMask",), KERNELS: ("JITFunction",)}
"""The same of classes that others name in annotations, and ask of a value whether it is one: none is before the library is there."""
NUMBERS: dict[str, dict[str, int]] = {ATTENTION: {"_DEFAULT_SPARSE_BLOCK_SIZE": 128}}
ROOTS = (COMPILER, OPTIMISERS, ATTENTION, KERNELS, *UNASKED)
MODULES = {root: sorted({root, *(name for name in CALLED if name.startswith(root))}) for root in ROOTS}
BITSANDBYTES = "bitsandbytes"


class _StandIn(ModuleType):
    """One module of a library, until more of it is needed than its marks, functions and classes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == COMPILER and name in MARKS:
            return _unmarked
        if name in CALLED.get(self.__name__, ()):
            return lambda *args, **given: getattr(_real(self.__name__), name)(*args, **given)
        if name in CLASSES.get(self.__name__, ()):
            return _Class(name, (), {"__module__": self.__name__})
        if name in NUMBERS.get(self.__name__, {}):
            return NUMBERS[self.__name__][name]
        return getattr(_real(self.__name__), name)


class _Class(type):
    """A class of a library that is not there yet."""

    def __instancecheck__(cls, one: Any) -> bool:
        real = sys.modules[cls.__module__]
        return not isinstance(real, _StandIn) and isinstance(one, getattr(real, cls.__name__))

    def __call__(cls, *args: Any, **given: Any) -> Any:
        return getattr(_real(cls.__module__), cls.__name__)(*args, **given)


def _unmarked(function: Callable[..., Any] | None = None, *args: Any, **given: Any) -> Any:
    return function or _unmarked


def _root(name: str) -> str | None:
    return next((root for root in MODULES if f"{name}.".startswith(f"{root}.")), None)


def _real(name: str) -> ModuleType:
    root = _root(name)
    assert root is not None, "only stand-ins are asked"
    if isinstance(sys.modules.get(root), _StandIn):
        _forget(root)
        importlib.import_module(root)
    return importlib.import_module(name)


def _forget(root: str) -> None:
    """The stand-ins of one library: what is imported of it from now on is real."""
    for module in MODULES[root]:
        if isinstance(sys.modules.get(module), _StandIn):
            del sys.modules[module]


class _Finder(MetaPathFinder, Loader):
    """Asked for a module that has no stand-in: brings the real library, which may have imported it already."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "transformers":
            _alone()
        elif name.startswith("transformers."):
            _remember()
        elif name.startswith("triton."):
            _forget(KERNELS)  # triton imports its own
        root = _root(name)
        if root is None or name == root or not isinstance(sys.modules.get(root), _StandIn):
            return None
        library = _real(root)
        return ModuleSpec(name, self) if name in sys.modules else PathFinder.find_spec(name, library.__path__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.own = sys.modules[spec.name].__spec__
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It ran when the library was imported."""
        module.__spec__ = self.own


def _alone() -> None:
    """A job is one process on one host: where torch could talk to others, transformers imports all that this would take."""
    import torch.distributed

    torch.distributed.is_available = lambda: False


def _remember() -> None:
    """transformers reads its 3,000 files twice at each start, for the names in them; they are found once, and kept in the user's cache."""
    utils = sys.modules.get("transformers.utils.import_utils")
    scan = getattr(utils, "create_import_structure_from_path", None)
    if scan is not None and not isinstance(scan, _Structure):
        utils.create_import_structure_from_path = _Structure(scan)  # type: ignore[union-attr]


class _Structure:
    """What `create_import_structure_from_path` finds below a folder: sets of names by file and by what these need."""

    def __init__(self, scan: Callable[[Any], Any]) -> None:
        self.scan, self.known = scan, dict[str, bytes]()

    def __call__(self, path: Any) -> Any:
        """Of the folder of all models: its parts are asked for inside."""
        folder = os.path.dirname(path) if os.path.isfile(path) else os.fspath(path)
        if os.path.basename(folder) != "models":
            return self.scan(path)
        if folder not in self.known:
            self.known[folder] = self._kept(folder)
        return marshal.loads(self.known[folder])  # a new one each time: callers may change theirs

    def _kept(self, folder: str) -> bytes:
        """As this or an earlier process found it, for these very files and this Python."""
        listed = sorted((file.path, file.stat().st_mtime_ns, file.stat().st_size) for file in _files(folder))
        state = digest(repr([sys.version, listed])).encode()
        place = files.cache() / "code" / f"transformers-{digest(folder)}"
        with contextlib.suppress(OSError, EOFError, ValueError, TypeError):  # none yet, or damaged
            before, _, found = place.read_bytes().partition(b"\n")
            if before == state and marshal.loads(found):
                return found
        found = marshal.dumps(self.scan(folder))
        with contextlib.suppress(OSError, MedbenchError), files.atomic(place) as aside:
            aside.write_bytes(state + b"\n" + found)
        return found


def _files(folder: str) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path)
            elif entry.name.endswith(".py"):
                yield entry


_FINDER = _Finder()


def without_unused() -> None:
    """From here on these libraries are imported when they are used. Call it before the first import of torch's dependents."""
    for root, modules in MODULES.items():
        if root in sys.modules:
            continue
        for name in modules:
            sys.modules[name] = stand_in = _StandIn(name)
            stand_in.__path__ = []
            stand_in.__spec__ = ModuleSpec(name, _FINDER)  # whoever looks whether it is installed finds this
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


@contextmanager
def bitsandbytes_where_used() -> Iterator[None]:
    """While peft puts adapters into a model: it imports bitsandbytes, and by it the compiler, wherever that is installed.

    Here it does so only where a model with quantised weights has imported it already.
    """
    absent = BITSANDBYTES not in sys.modules
    if absent:
        sys.modules[BITSANDBYTES] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        from peft import import_utils

        for known in (import_utils.is_bnb_available, import_utils.is_bnb_4bit_available):
            known.cache_clear()  # asked before, of another model
        yield
    finally:
        if absent:
            del sys.modules[BITSANDBYTES]
