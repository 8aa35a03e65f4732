"""The rules of docs/architecture.md that a machine can check: who imports whom, lengths, docstrings, names.

Each rule is a function of one source file that yields ``line, what is wrong``; ``test_the_rule_can_fail`` shows every
rule a source that breaks it.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Part of birder -> parts that it may import. `cli`, `testing` and `__main__` may import everything.
MAY_IMPORT = {
    "__init__": "lazy",
    "errors": "",
    "lazy": "",
    "files": "errors",
    "registry": "errors",
    "config": "errors",
    "signature": "errors",
    "distributed": "errors",
    "cores": "",
    "device": "errors cores",
    "home": "",
    "layers": "errors",
    "networks": "errors layers registry config",
    "model_file": "errors lazy files config networks signature",
    "gallery": "errors networks",
    "catalogue": "errors config gallery home",
    "hub": "errors files config signature home gallery catalogue networks data model_file",
    "objectives": "errors config registry signature layers distributed networks",
    "data": "errors files config signature home",
    "training": "errors files config signature distributed cores device networks objectives data model_file hub "
    "evaluation.classification evaluation.feature_map evaluation.metrics evaluation.representation",
    "inference": "errors files config signature home cores device networks data hub model_file",
    "evaluation": "errors files config signature distributed networks data hub model_file inference",
    "calibration": "errors files config signature device networks data hub model_file inference evaluation",
    "explain": "errors files config signature device layers networks data hub model_file inference",
    "report": "errors files config signature device cores networks data hub model_file inference evaluation explain",
    "search": "errors files config signature networks data hub model_file inference",
    "export": "errors files config signature networks data hub model_file inference",
    "serving": "errors files config signature networks data hub model_file inference explain",
    "recipes": "errors config files training objectives networks data",
}
FREE = {"cli", "testing", "__main__"}
NEVER_IMPORTED = {"cli", "recipes", "testing", "__main__"}

# Third-party packages at module level: these everywhere, and some where they are at home.
EVERYWHERE = {"torch", "numpy", "PIL"}
SERVER = {"fastapi", "starlette", "pydantic", "uvicorn", "h11", "prometheus_client", "python_multipart"}
AT_HOME = {
    "cli": {"cyclopts", "rich"},
    "model_file": {"safetensors"},
    "training": {"tomli_w", "filelock"},
    "serving": SERVER,
}

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
MOST_POSITIONAL = 5
# The interface that the published model cards call, by position.
PUBLISHED = {"infer_image", "infer_batch", "infer_dataloader", "infer_dataloader_iter"}
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}

Problem = tuple[int, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    path: str
    """Relative to the repository, with slashes: ``birder/data/images.py``."""
    text: str

    @property
    def part(self) -> str:
        """The first word below ``birder``: ``data`` of ``birder/data/images.py``, ``hub`` of ``birder/hub.py``."""
        return Path(self.path).parts[1].removesuffix(".py")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def walk(node: ast.AST, *, into_functions: bool = True) -> Iterator[ast.AST]:
    """All nodes below one, but not what stands under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        if into_functions or not isinstance(child, Function | ast.Lambda):
            yield from walk(child, into_functions=into_functions)


def imported(node: ast.AST) -> list[str]:
    """Dotted names that a statement imports: ``birder.hub.fetch`` of ``from birder.hub import fetch``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def who_imports_whom(source: Source) -> Iterator[Problem]:
    if source.part != "__init__" and source.part not in MAY_IMPORT.keys() | FREE:
        yield 1, f"birder.{source.part} is a new part: say in MAY_IMPORT what it may import"
        return
    allowed = {source.part, "__version__", *MAY_IMPORT.get(source.part, "").split()}
    for node in walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            yield node.lineno, "a relative import: write birder. in full"
        for name in imported(node):
            top, _, rest = name.partition(".")
            if top != "birder" or not rest:
                continue
            part = rest.split(".")[0]
            if part in NEVER_IMPORTED and part != source.part and source.part not in FREE:
                yield node.lineno, f"imports {name}: nobody imports {part}"
            elif source.part not in FREE and not any(rest == good or rest.startswith(f"{good}.") for good in allowed):
                yield node.lineno, f"imports {name}: birder.{source.part} may only import {' '.join(sorted(allowed))}"


def third_party_imports(source: Source) -> Iterator[Problem]:
    allowed = EVERYWHERE | AT_HOME.get(source.part, set()) | sys.stdlib_module_names | {"birder"}
    for node in walk(source.tree, into_functions=False):
        for name in imported(node):
            if name.split(".")[0] not in allowed:
                yield node.lineno, f"imports {name} at module level: import it in the function that needs it"


def no_future(source: Source) -> Iterator[Problem]:
    for node in walk(source.tree):
        if any(name.startswith("__future__") for name in imported(node)):
            yield node.lineno, "imports from __future__: Python 3.11 has what is needed"


def function_length(source: Source) -> Iterator[Problem]:
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield node.lineno, f"{node.name} has {lines} lines, more than {LONGEST_FUNCTION}"


def file_length(source: Source) -> Iterator[Problem]:
    lines = len(source.text.splitlines())
    if lines > LONGEST_FILE:
        yield lines, f"{lines} lines, more than {LONGEST_FILE}"


def positional_parameters(source: Source) -> Iterator[Problem]:
    for node in ast.walk(source.tree):
        if isinstance(node, Function) and node.name not in PUBLISHED:
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MOST_POSITIONAL:
                yield (
                    node.lineno,
                    f"{node.name} has {count} positional parameters: make those after {MOST_POSITIONAL} keyword-only",
                )


def docstrings(source: Source) -> Iterator[Problem]:
    if not ast.get_docstring(source.tree):
        yield 1, "the module has no docstring"
    yield from _missing_docstrings(source.tree)


def _missing_docstrings(node: ast.AST) -> Iterator[Problem]:
    for child in ast.iter_child_nodes(node):
        definition = isinstance(child, Function | ast.ClassDef)
        if definition and child.name.startswith("_"):
            continue
        if definition and not ast.get_docstring(child) and not _decorated(child, "overload"):
            yield child.lineno, f"{child.name} has no docstring"
        if not isinstance(child, Function):
            yield from _missing_docstrings(child)


def dataclass_fields(source: Source) -> Iterator[Problem]:
    for cls in ast.walk(source.tree):
        if not isinstance(cls, ast.ClassDef) or cls.name.startswith("_") or not _decorated(cls, "dataclass"):
            continue
        for field, below in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                if not documented and not field.target.id.startswith("_"):
                    yield field.lineno, f"{cls.name}.{field.target.id} has no text below it that says what it is"


def _decorated(node: Function | ast.ClassDef, decorator: str) -> bool:
    names = (ast.unparse(item.func if isinstance(item, ast.Call) else item) for item in node.decorator_list)
    return any(name.split(".")[-1] == decorator for name in names)


def public_names(source: Source) -> Iterator[Problem]:
    """``__all__``: sorted (constants, classes, the rest), and all public names of a package's ``__init__`` file."""
    names: dict[str, int] = {}
    offered: tuple[int, list[str]] | None = None
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            offered = (node.lineno, ast.literal_eval(node.value))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0]: node.lineno for alias in node.names}
        elif isinstance(node, Function | ast.ClassDef):
            names[node.name] = node.lineno
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id: node.lineno for target in targets if isinstance(target, ast.Name)}
    if offered is None:
        return
    line, listed = offered
    if listed != sorted(listed, key=lambda name: (not name.isupper(), not name[:1].isupper(), name)):
        yield line, "__all__ is not sorted"
    if "_HOME" in names:  # whose names are imported when they are used, as tests/test_lazy.py sees
        return
    for name in listed:
        if name not in names:
            yield line, f"__all__ names {name}, which is not there"
    if source.path.endswith("__init__.py"):
        for name, where in names.items():
            if not name.startswith("_") and name not in listed:
                yield where, f"{name} is not in __all__"


def module_name(source: Source) -> Iterator[Problem]:
    for word in Path(source.path).with_suffix("").parts:
        if word in EMPTY_NAMES:
            yield 1, f"{word} says nothing: name the module for what is in it"


def no_print(source: Source) -> Iterator[Problem]:
    if source.part in ("cli", "__main__"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno, "prints: only the command line does"


Rule = Callable[[Source], Iterator[Problem]]
RULES: tuple[Rule, ...] = (
    who_imports_whom,
    third_party_imports,
    no_future,
    function_length,
    file_length,
    positional_parameters,
    docstrings,
    dataclass_fields,
    public_names,
    module_name,
    no_print,
)


@pytest.fixture(scope="module")
def sources(root: Path) -> list[Source]:
    paths = sorted((root / "birder").rglob("*.py"))
    return [Source(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule, sources: list[Source]) -> None:
    problems = [f"{source.path}:{line} {text}" for source in sources for line, text in rule(source)]
    assert not problems, "\n" + "\n".join(problems)


ONE_DOC = '"""A module."""\n'
LONG = "def f():\n" + "    x = 1\n" * 60


BAD: list[tuple[Rule, str, str, str]] = [
    (who_imports_whom, "birder/layers/a.py", "import birder.networks.base", "birder.layers may only import"),
    (who_imports_whom, "birder/layers/a.py", "from birder import networks", "birder.layers may only import"),
    (who_imports_whom, "birder/layers/a.py", "def f():\n    from birder.data import x", "may only import"),
    (who_imports_whom, "birder/hub.py", "from birder import create_network", "may only import"),
    (who_imports_whom, "birder/training/a.py", "from birder.evaluation.report import x", "may only import"),
    (who_imports_whom, "birder/training/a.py", "from birder.testing import x", "nobody imports testing"),
    (who_imports_whom, "birder/layers/a.py", "from . import b", "relative import"),
    (who_imports_whom, "birder/novel/a.py", "", "new part"),
    (third_party_imports, "birder/hub.py", "import tqdm.auto", "imports tqdm.auto at module level"),
    (third_party_imports, "birder/hub.py", "try:\n    from rich import x\nexcept E:\n    pass", "imports rich"),
    (no_future, "birder/hub.py", "from __future__ import annotations", "imports from __future__"),
    (function_length, "birder/hub.py", LONG, "f has 61 lines"),
    (file_length, "birder/hub.py", "x = 1\n" * 401, "401 lines"),
    (positional_parameters, "birder/hub.py", "class A:\n def f(self, a, b, c, d, e, /, g): ...", "f has 6"),
    (docstrings, "birder/hub.py", "x = 1", "the module has no docstring"),
    (docstrings, "birder/hub.py", ONE_DOC + "def f(): ...", "f has no docstring"),
    (docstrings, "birder/hub.py", ONE_DOC + "class A:\n  '''Is.'''\n  def f(self): ...", "f has no docstring"),
    (
        dataclass_fields,
        "birder/hub.py",
        "@dataclass(frozen=True)\nclass A:\n  '''Is.'''\n  b: int = 1",
        "A.b has no",
    ),
    (public_names, "birder/data/__init__.py", "__all__ = ['b', 'a']\na = b = 1", "not sorted"),
    (public_names, "birder/data/__init__.py", "__all__ = ['a']", "names a, which is not there"),
    (
        public_names,
        "birder/data/__init__.py",
        "from birder.data.x import a, b\n__all__ = ['a']",
        "b is not in __all__",
    ),
    (module_name, "birder/data/utils.py", "", "utils says nothing"),
    (no_print, "birder/hub.py", "def f():\n    print(1)", "prints"),
]

GOOD: list[tuple[Rule, str, str]] = [
    (who_imports_whom, "birder/training/a.py", "from birder.evaluation import metrics"),
    (
        who_imports_whom,
        "birder/hub.py",
        "import birder\nfrom birder import __version__\nfrom birder.model_file import x",
    ),
    (who_imports_whom, "birder/layers/a.py", "if TYPE_CHECKING:\n    from birder.networks import Network"),
    (who_imports_whom, "birder/cli/train.py", "from birder.recipes import x\nfrom birder.training import y"),
    (
        third_party_imports,
        "birder/hub.py",
        "import os, torch.nn\nfrom PIL import Image\ndef f():\n    import sklearn",
    ),
    (third_party_imports, "birder/cli/train.py", "import rich.progress"),
    (function_length, "birder/hub.py", LONG.removesuffix("    x = 1\n")),
    (positional_parameters, "birder/hub.py", "class A:\n def f(self, a, b, c, d, e, *, g, h): ..."),
    (docstrings, "birder/hub.py", ONE_DOC + "def f():\n  '''Is.'''\n  def g(): ...\nclass _H:\n  def i(self): ..."),
    (
        dataclass_fields,
        "birder/hub.py",
        "@dataclass\nclass A:\n  '''Is.'''\n  b: int\n  '''This.'''\nclass B:\n  c: int",
    ),
    (public_names, "birder/data/__init__.py", "import a, b, Cat, DOG\n_e = 1\n__all__ = ['DOG', 'Cat', 'a', 'b']"),
    (no_print, "birder/cli/train.py", "print(1)"),
]


@pytest.mark.parametrize(("rule", "path", "text", "problem"), BAD, ids=[case[0].__name__ for case in BAD])
def test_the_rule_can_fail(rule: Rule, path: str, text: str, problem: str) -> None:
    problems = [text for _, text in rule(Source(path, text))]
    assert any(problem in text for text in problems), problems


@pytest.mark.parametrize(("rule", "path", "text"), GOOD, ids=[case[0].__name__ for case in GOOD])
def test_the_rule_lets_good_code_pass(rule: Rule, path: str, text: str) -> None:
    assert not list(rule(Source(path, text)))


def test_every_rule_is_shown_to_fail() -> None:
    assert {case[0] for case in BAD} == set(RULES)
