"""Rerun keys: the text that must stay equal for a finished job to stay finished: parameters, and a digest of the code in use.

Code is taken definition by definition (functions, classes, constants), not file by file: from a stage's `run` and what the job loads by
name, over everything that these use, at any depth. Of a definition counts what it computes, so neither docstrings, comments,
annotations and the wording of errors, nor the names of the modules that definitions stand in: a definition that is moved, or a module
that is renamed, reruns nothing, and an edit reruns exactly what uses the definition.

A module that decides no result (where files lie, how progress looks) says so itself by `TRACKED = False`. What is loaded by name
(an architecture, a layout, a task's table) cannot be seen in the code: a stage names it, as `module` (all that stands in it)
or `module:definition`.

Reading all definitions takes a second. So the answers are kept in the user's cache, for these very sources and this very Python.
"""

import ast
import atexit
import json
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from medbench.jobs import files
from medbench.jobs.digests import canonical, digest

TRACKED = False  # keys are compared, and no part of a result
PACKAGE = Path(__file__).parents[1]
# Import name -> the distributions whose versions can change what is computed through it.
LIBRARIES = {
    **{name: (name,) for name in ("accelerate", "altair", "numpy", "polars", "pyarrow", "safetensors", "scipy", "tokenizers", "torch")},
    "PIL": ("pillow",),
    "bitsandbytes": ("bitsandbytes",),
    "open_clip": ("open-clip-torch", "timm"),
    "peft": ("peft", "accelerate"),
    "rouge_score": ("rouge-score",),
    "sklearn": ("scikit-learn", "scipy"),
    "snakemake": ("snakemake",),
    "torchvision": ("torchvision",),
    "transformers": ("transformers", "tokenizers", "torchvision"),
    "vl_convert": ("vl-convert-python",),
}

EFFECTS = ""
"""Name for the statements of a module that define nothing, but act when it is imported: they belong to each of its definitions."""


def fingerprint(params: Any, uses: tuple[str, ...]) -> str:
    """What the rule records for one job: its parameters by name, and the digest of the code that makes it."""
    return canonical({"params": _without_modules(params._asdict()), "code": code_digest(uses)})


def _without_modules(value: Any) -> Any:
    """Without the names of our own modules: the digest holds their code."""
    if isinstance(value, str):  # most are
        return "" if value.startswith("medbench.") else value
    if isinstance(value, Mapping):  # defaults of parameters are no dictionaries
        return {key: _without_modules(item) for key, item in value.items()}
    return [_without_modules(item) for item in value] if isinstance(value, list | tuple) else value


@cache
def code_digest(uses: tuple[str, ...]) -> str:
    """Digest over the code of all definitions that some definitions use, themselves included."""
    return str(_kept("code", uses, lambda: digest("\n".join(sorted({_referring(definition(name)) for name in closure(uses)})))))


@cache
def libraries(uses: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted distributions of `LIBRARIES` that these definitions use."""

    def found() -> list[str]:
        outside = {library for name in closure(uses) for library in definition(name).libraries}
        return sorted({library for name in outside for library in LIBRARIES.get(name, ())})

    return tuple(_kept("libraries", uses, found))


def _kept(question: str, uses: tuple[str, ...], find: Callable[[], Any]) -> Any:
    """The answer of this or an earlier process."""
    answers, asked = _answers(), f"{question} of {' '.join(uses)}"
    if asked not in answers:
        answers[asked] = find()
    return answers[asked]


@cache
def _answers() -> dict[str, Any]:
    """What was found of these very sources; what this process adds is written at its end. Those of old sources go after a while."""
    state = _state()
    place = files.cache() / "code" / f"{state}.json"
    try:
        answers = dict(json.loads(place.read_bytes()))
    except (OSError, ValueError, TypeError):
        answers = {}
    n_kept = len(answers)

    def keep() -> None:
        if len(answers) == n_kept or _state() != state:
            return
        try:
            with files.atomic(place) as aside:
                aside.write_text(json.dumps(answers), encoding="utf-8")
            files.forget_unused(place.parent)
        except OSError:  # a cache that cannot be written costs time, nothing else
            pass

    atexit.register(keep)
    return answers


def _state() -> str:
    """Digest of all sources and of Python, which writes code in its own way."""
    sources = [(path.relative_to(PACKAGE).as_posix(), digest(path.read_bytes())) for path in sorted(PACKAGE.rglob("*.py"))]
    return digest(canonical([sys.version, sources]))


@cache
def closure(uses: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted `module:definition` of all that some modules or definitions use, themselves included."""
    found: set[str] = set()
    waiting = [name for one in uses for name in _named(one)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += definition(name).uses
    return tuple(sorted(found))


def _named(use: str) -> list[str]:
    """The definitions that a stage means: `module:definition`, or all of a module; none of an architecture that has no file yet."""
    module, _, name = use.partition(":")
    if (parsed := _module(module)) is None:
        return []
    if name:
        return _resolved(module, name)
    return [f"{module}:{defined}" for defined in parsed.nodes] if parsed.is_tracked else []


class Definition(NamedTuple):
    """One definition: its code without what decides nothing, the definitions it uses, and top-level names of libraries."""

    code: str
    uses: tuple[str, ...]
    libraries: frozenset[str]


def _referring(one: Definition) -> str:
    """Its code, and that of what it refers to: two definitions of one name, in two modules, are not taken for each other."""
    named = {digest(definition(name).code) for name in one.uses if not name.endswith(f":{EFFECTS}")}
    return "\n".join([one.code, *sorted(named)])


class _Module(NamedTuple):
    """A parsed module: its statements; which of them make a name; what is imported, name -> dotted path."""

    statements: list[ast.stmt]
    nodes: dict[str, list[int]]
    imports: dict[str, str]
    is_tracked: bool
    package: str  # that it stands in


def source(module: str) -> Path | None:
    """File of a medbench module, or None for a name that is no module (an imported function, say)."""
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _module(module: str) -> _Module | None:
    path = source(module)
    if path is None:
        return None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    nodes: dict[str, list[int]] = {}
    imports: dict[str, str] = {}
    for place, node in enumerate(statements):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= _imported(node, package)
        elif (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)) or _is_docstring(node):
            continue
        else:
            for inner in ast.walk(node) if isinstance(node, ast.If | ast.Try | ast.With) else ():
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    imports |= _imported(inner, package)
            for name in [*_defined(node), *([EFFECTS] if _acts(node) else [])]:
                nodes.setdefault(name, []).append(place)
    return _Module(statements, nodes, imports, "TRACKED" not in nodes, package)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, str]:
    """Name -> dotted path of what it stands for, in a module of this package."""
    if isinstance(node, ast.ImportFrom):
        above = package.rsplit(".", node.level - 1)[0] if node.level else ""  # `from .` is the package, `from ..` the one around it
        origin = ".".join(part for part in (above, node.module) if part)
        return {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}
    return {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0] for alias in node.names}


def _defined(node: ast.stmt) -> list[str]:
    """Names that a top-level statement makes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    made = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.If, ast.Try, ast.With, ast.For)
    if not isinstance(node, made):
        return []
    inside = [one for one in ast.walk(node) if isinstance(one, ast.FunctionDef | ast.ClassDef)]
    targets = [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
    return list(dict.fromkeys([*targets, *(one.name for one in inside)]))


def _acts(node: ast.stmt | ast.ExceptHandler) -> bool:
    """Whether a top-level statement does anything but make names: it sets an item of a table, say, also where it does so in a loop."""
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(one, ast.Subscript | ast.Attribute) for target in targets for one in ast.walk(target))
    if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.ExceptHandler):
        return any(_acts(inner) for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.stmt | ast.ExceptHandler))
    return not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass)


def _resolved(module: str, name: str) -> list[str]:
    """`module:name` of a definition, followed through what a module imports; none for another library, or where nothing is tracked."""
    parsed = _module(module)
    if parsed is None:
        return []
    if name in parsed.nodes:
        return [f"{module}:{name}"] if parsed.is_tracked else []
    if name in parsed.imports and parsed.imports[name].startswith("medbench."):
        return _resolved(*_split(parsed.imports[name]))
    return []


def _split(path: str) -> tuple[str, str]:
    """Dotted path of a definition -> its module, its name."""
    module, _, name = path.rpartition(".")
    return module, name


@cache
def definition(name: str) -> Definition:
    """What `module:name` holds. Raises KeyError for a name that its module does not define."""
    module, _, wanted = name.partition(":")
    parsed = _module(module)
    if parsed is None or wanted not in parsed.nodes:
        raise KeyError(name)
    parts = [_statement(module, place) for place in parsed.nodes[wanted]]
    uses = [use for part in parts for use in part.uses if use != name]
    if wanted != EFFECTS and EFFECTS in parsed.nodes:
        uses.append(f"{module}:{EFFECTS}")
    return Definition(
        "\n".join(part.code for part in parts), tuple(dict.fromkeys(uses)), frozenset().union(*(one.libraries for one in parts))
    )


@cache
def _statement(module: str, place: int) -> Definition:
    """One statement of a module. Its tree is changed, so it is read once."""
    parsed = _module(module)
    assert parsed is not None, "a definition was found in it"
    reader = _Reader(module, parsed)
    code = ast.unparse(reader.visit(parsed.statements[place]))
    return Definition(code, tuple(reader.uses), frozenset(reader.libraries))


class _Reader(ast.NodeTransformer):
    """Takes out of a definition what decides nothing, and notes what it uses."""

    def __init__(self, module: str, parsed: _Module) -> None:
        self.module, self.parsed = module, parsed
        self.imports = dict(parsed.imports)
        self.uses: list[str] = []
        self.libraries: set[str] = set()
        self.local: list[set[str]] = []  # names that the functions around bind themselves

    def visit_FunctionDef(self, node: Any) -> Any:
        """Without docstring and annotations."""
        node.returns = None
        decorators, node.decorator_list = [self.visit(one) for one in node.decorator_list], []
        defaults = self._defaults(node.args)
        self.local.append(_bound(node))
        self._body(node)
        self.local.pop()
        node.decorator_list, (node.args.defaults, node.args.kw_defaults) = decorators, defaults
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        """Without docstring."""
        return self._body(node)

    def _body(self, node: Any) -> Any:
        for inner in ast.walk(node):  # imports inside hold for the whole definition
            if isinstance(inner, ast.Import | ast.ImportFrom):
                self.imports |= _imported(inner, self.parsed.package)
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def _inner(self, node: Any) -> Any:
        """A comprehension, whose own names hold inside it."""
        first = self.visit(node.generators[0].iter)  # computed outside, where none of its names holds
        node.generators[0].iter = ast.Constant(None)
        self.local.append(_bound(node))
        self.generic_visit(node)
        self.local.pop()
        node.generators[0].iter = first
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _inner

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        """Its own names hold inside it, but not in its defaults."""
        defaults = self._defaults(node.args)
        self.local.append(_bound(node))
        self.generic_visit(node)
        self.local.pop()
        node.args.defaults, node.args.kw_defaults = defaults
        return node

    def _defaults(self, arguments: ast.arguments) -> tuple[list[Any], list[Any]]:
        """Visited, and taken out: they are computed outside, where no name of the function holds."""
        defaults = [self.visit(one) for one in arguments.defaults]
        of_keywords = [one and self.visit(one) for one in arguments.kw_defaults]
        arguments.defaults, arguments.kw_defaults = [], [None] * len(of_keywords)
        return defaults, of_keywords

    def visit_arg(self, node: ast.arg) -> Any:
        """Without its annotation."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        """The name and value: of a field without a value, its name."""
        node.value = self.visit(node.value) if node.value else None
        node.annotation = ast.Constant(None)
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        """Docstrings go."""
        return None if _is_docstring(node) else self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> Any:
        """The name of a module of ours that is loaded by name: its code is named by the stage."""
        return ast.Constant("") if isinstance(node.value, str) and node.value.startswith("medbench.") else node

    def visit_Raise(self, node: ast.Raise) -> Any:
        """How an error is worded decides no result."""
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> Any:
        """Noted when the definition is entered."""
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        """Noted when the definition is entered."""
        return None

    def visit_Name(self, node: ast.Name) -> Any:
        """A name that the module defines or imports."""
        if self._is_local(node.id):
            return node
        if node.id in self.imports:
            return self._use(node, self.imports[node.id])
        if isinstance(node.ctx, ast.Load) and node.id in self.parsed.nodes:
            self.uses += _resolved(self.module, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        """`module.name` of ours counts as `name`, so that no name of a module is left."""
        path = self._dotted(node)
        if path and path.startswith("medbench.") and source(path) is None and source(_split(path)[0]) is not None:
            return self._use(node, path)
        return self.generic_visit(node)

    def _is_local(self, name: str) -> bool:
        return any(name in names for names in self.local)

    def _dotted(self, node: ast.expr) -> str | None:
        """Dotted path of `a.b.c`, where `a` is imported."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.imports or self._is_local(node.id):
            return None
        return ".".join([self.imports[node.id], *reversed(names)])

    def _use(self, node: Any, path: str) -> Any:
        if not path.startswith("medbench"):
            self.libraries.add(path.split(".")[0])
            return ast.Name(path, node.ctx)  # whatever it is called here
        module, name = _split(path)
        self.uses += _resolved(module, name) if source(path) is None else _named(path)  # a module that is handed on: all of it
        return ast.Name(name, node.ctx)


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _bound(scope: Any) -> set[str]:
    """Names that a function, lambda or comprehension binds itself: they are none of its module."""
    found = {argument.arg for argument in ast.walk(scope.args) if isinstance(argument, ast.arg)} if hasattr(scope, "args") else set()
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if not isinstance(node, _SCOPES):
            waiting += ast.iter_child_nodes(node)
    return found
