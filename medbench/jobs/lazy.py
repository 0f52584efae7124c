"""Libraries that a model job imports only where it uses them: torch's compiler and its distribution, scipy's optimisers, bitsandbytes.

transformers, torchvision and torch's optimisers import `torch._dynamo` to mark functions for `torch.compile`; transformers imports
`scipy.optimize` for losses of object detection, and whatever of `torch.distributed` spreads a model over processes. Nothing here calls
them, and together they take as long to import as torch itself. Stand-ins give what is marked back as it is, and bring the real
library for anything else that is asked of them: one that changes makes a job slower, not wrong.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

TRACKED = False  # when a library is imported decides no result

COMPILER, OPTIMISERS = "torch._dynamo", "scipy.optimize"
MARKS = frozenset(("allow_in_graph", "assume_constant_result", "disable", "graph_break"))  # what the compiler alone heeds
CALLED = {
    f"{COMPILER}.utils": "is_compile_supported",
    f"{COMPILER}._trace_wrapped_higher_order_op": "TransformGetItemToIndex",
    OPTIMISERS: "linear_sum_assignment",
}
"""Module -> the function that others import of it at their own import, and call later, if ever."""
MODULES = {root: sorted({root, *(name for name in CALLED if name.startswith(root))}) for root in (COMPILER, OPTIMISERS)}
BITSANDBYTES = "bitsandbytes"


class _StandIn(ModuleType):
    """One module of a library, until more of it is needed than its marks, functions and classes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == COMPILER and name in MARKS:
            return _unmarked
        if CALLED.get(self.__name__) == name:
            return lambda *args, **given: getattr(_real(self.__name__), name)(*args, **given)
        return getattr(_real(self.__name__), name)


def _unmarked(function: Callable[..., Any] | None = None, *args: Any, **given: Any) -> Any:
    return function or _unmarked


def _root(name: str) -> str | None:
    return next((root for root in MODULES if f"{name}.".startswith(f"{root}.")), None)


def _real(name: str) -> ModuleType:
    root = _root(name)
    assert root is not None, "only stand-ins are asked"
    if isinstance(sys.modules.get(root), _StandIn):
        for module in MODULES[root]:
            sys.modules.pop(module)
        importlib.import_module(root)
    return importlib.import_module(name)


class _Finder(MetaPathFinder, Loader):
    """Asked for a module that has no stand-in: brings the real library, which may have imported it already."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "transformers":
            _alone()
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


_FINDER = _Finder()


def without_unused() -> None:
    """From here on these libraries are imported when they are used. Call it before the first import of torch's dependents."""
    for root, modules in MODULES.items():
        if root in sys.modules:
            continue
        for name in modules:
            sys.modules[name] = stand_in = _StandIn(name)
            stand_in.__path__ = []
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
