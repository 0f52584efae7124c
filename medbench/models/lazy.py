"""Libraries that a model job imports only where it uses them: torch's compiler, and bitsandbytes.

transformers, torchvision and torch's optimisers import `torch._dynamo` to mark functions for `torch.compile`, which nothing here calls; the
compiler takes about as long to import as torch itself. So stand-ins give what is marked back as it is, and bring the real compiler
for anything else that is asked of them: a library that changes makes a job slower, not wrong.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
MARKS = frozenset(("allow_in_graph", "assume_constant_result", "disable", "graph_break"))  # what the compiler alone heeds
NAMES = {f"{COMPILER}.utils": "is_compile_supported", f"{COMPILER}._trace_wrapped_higher_order_op": "TransformGetItemToIndex"}
"""Module -> what others import of it at their own import, and call later, if ever."""
BITSANDBYTES = "bitsandbytes"


class _StandIn(ModuleType):
    """One module of the compiler, until more of it is needed than its marks and names."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == COMPILER and name in MARKS:
            return _unmarked
        if NAMES.get(self.__name__) == name:
            return lambda *args, **given: getattr(_real(self.__name__), name)(*args, **given)
        return getattr(_real(self.__name__), name)


def _unmarked(function: Callable[..., Any] | None = None, *args: Any, **given: Any) -> Any:
    return function or _unmarked


def _real(name: str) -> ModuleType:
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
        for module in (COMPILER, *NAMES):
            sys.modules.pop(module)
        importlib.import_module(COMPILER)
    return importlib.import_module(name)


class _Finder(MetaPathFinder, Loader):
    """Asked for a module of the compiler that has no stand-in: brings the real one, which may have imported it already."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(f"{COMPILER}."):
            return None
        compiler = _real(COMPILER)
        return ModuleSpec(name, self) if name in sys.modules else PathFinder.find_spec(name, compiler.__path__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.own = sys.modules[spec.name].__spec__
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It ran when the compiler was imported."""
        module.__spec__ = self.own


_FINDER = _Finder()


def without_compiler() -> None:
    """From here on the compiler is imported when it is used. Call it before the first import of torch's dependents; again does nothing."""
    if COMPILER in sys.modules:
        return
    for name in (COMPILER, *NAMES):
        sys.modules[name] = _StandIn(name)
    sys.modules[COMPILER].__path__ = []
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
