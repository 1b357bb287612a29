"""The house: which room may import which. This table documents it, and the tests hold it true.

A room is a file of ``netdef/``, or a folder of it, or ``cli``. Rooms stand in the order they are
built in: each may import only rooms above it, and of those only the ones it names. So nothing runs
in a circle, whoever reads a room knows all it can depend on, and a change reaches only what stands
below.

Imports under ``if TYPE_CHECKING`` do not count: they name a type and bring nothing in.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

ROOMS = {
    # The public names, brought in when they are first used: importing any room passes through here.
    "netdef": "",
    # What everything stands on.
    "errors": "",
    "events": "",
    "proto": "",
    "jit": "",
    "blob": "",
    "files": "errors",
    "hdf5": "files blob errors",
    "rng": "jit",
    "kernels": "jit blob",
    "fillers": "rng blob errors proto",
    # From text to graph: pure functions of messages.
    "prototxt": "errors proto",
    "forks": "prototxt",
    "upgrade": "prototxt errors proto",
    "schedule": "prototxt errors proto",
    "graph": "prototxt errors proto",
    # Records.
    "data": "hdf5 jit rng files blob errors events proto",
    # A layer knows its blobs, and nothing of the net it stands in.
    "layer": "forks rng blob errors events proto",
    # The names that Python layers import.
    "pycaffe": "netdef blob proto",
    "layers": "layer pycaffe jit kernels rng fillers data hdf5 files blob errors events proto",
    # From graph to arrays.
    "plan": "graph layer prototxt blob errors proto",
    "fusion": "plan layer blob",
    "fused": "fusion plan layer jit kernels blob proto",
    "memory": "fusion plan blob",
    "arena": "memory plan blob",
    "parameters": "blob",
    "program": "arena memory fusion parameters plan layer kernels rng fillers blob errors events",
    "cost": "memory plan proto",
    # Files of parameters.
    "wire": "blob errors",
    "weights": "wire hdf5 blob errors proto",
    "snapshot": "weights wire hdf5 blob files errors proto",
    "describe": "weights memory plan blob",
    # What users hold.
    "net": "program memory fusion plan graph layer upgrade forks prototxt weights snapshot jit rng"
    " blob errors events proto",
    "testing": "net layer prototxt jit blob errors proto",
    "evaluate": "net prototxt blob errors events proto",
    "features": "net data prototxt blob errors events proto",
    "timing": "net program cost plan prototxt events proto",
    "solvers": "jit kernels prototxt blob errors proto",
    "solver": "net program parameters solvers schedule upgrade forks prototxt weights snapshot"
    " kernels jit rng blob errors events proto",
    # What can be said of a net or a solver without running it.
    "check": "solver solvers plan graph layer schedule upgrade forks prototxt blob errors proto",
    # What is said of all of it.
    "reference": "solvers layer schedule fillers prototxt proto",
    "sinks": "plan prototxt errors events proto",
    "cli": "netdef check solver solvers evaluate features timing net describe memory fusion plan"
    " graph layer upgrade prototxt schedule weights snapshot data sinks reference jit blob files"
    " errors events proto",
    "__main__": "cli",
}

#: Outside libraries that only some rooms may import. numpy and protobuf are everywhere.
LIBRARIES = {
    "numba": "jit kernels",
    "llvmlite": "kernels",
    "lmdb": "data",
    "h5py": "hdf5",
    "cv2": "data",
    "rich": "sinks cli",
    "click": "cli",
}

SOURCES = sorted([*REPOSITORY.glob("netdef/**/*.py"), *REPOSITORY.glob("cli/**/*.py")])


def room_of(module: str) -> str:
    """The room a module stands in: ``netdef.layers.relu`` is in "layers"."""
    package, _, rest = module.partition(".")
    if package == "netdef_cli":
        return "cli"
    name = rest.partition(".")[0] or "netdef"
    # The reader of prototxt has several files; together they are one room.
    return "prototxt" if name.startswith("prototxt_") else name


def module_of(source: Path) -> str:
    """The name a source file is imported by."""
    parts = source.relative_to(REPOSITORY).with_suffix("").parts
    package = "netdef_cli" if parts[0] == "cli" else "netdef"
    return ".".join([package, *(part for part in parts[1:] if part != "__init__")])


MODULES = {module_of(source): source for source in SOURCES}


def imports(code: str, package: str) -> Iterator[tuple[str, int]]:
    """Every module that running ``code``, a file of ``package``, may import, and on which line."""
    waiting: list[ast.AST] = [ast.parse(code)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                # ``from package import name`` may name one of its files or something inside it.
                file = f"{origin}.{alias.name}"
                yield (file if file in MODULES else origin), node.lineno
        waiting += ast.iter_child_nodes(node)


def is_empty(module: str) -> bool:
    """Whether this is a package without code of its own, such as ``netdef.layers``.

    Importing one is how the files in it are discovered.
    """
    source = MODULES.get(module)
    if source is None or source.name != "__init__.py":
        return False
    return all(isinstance(node, ast.Expr) for node in ast.parse(source.read_text("utf-8")).body)


def violations(room: str, code: str, package: str = "netdef") -> list[str]:
    """The imports in ``code`` that ``room`` may not make, one sentence each."""
    allowed = {room, *ROOMS[room].split()}
    found = []
    for module, line in imports(code, package):
        top = module.partition(".")[0]
        if top in LIBRARIES and room not in LIBRARIES[top].split():
            where = LIBRARIES[top].replace(" ", " and ")
            found.append(f"line {line}: {top} is imported only in {where}")
        if top not in ("netdef", "netdef_cli") or is_empty(module):
            continue
        if room_of(module) not in allowed:
            found.append(f'line {line}: "{room}" may not import "{room_of(module)}"')
    return sorted(found)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_the_rooms_it_may(module: str) -> None:
    room = room_of(module)
    assert room in ROOMS, f'"{room}" has no row in ROOMS'
    source = MODULES[module]
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    assert violations(room, source.read_text("utf-8"), package) == []


def test_rooms_import_only_rooms_above_them() -> None:
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert set(allowed.split()) <= above, f'"{room}" may import a room that stands below it'
        above.add(room)


def test_no_room_stands_empty() -> None:
    assert set(ROOMS) == {room_of(module) for module in MODULES}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "netdef.jit"])
def test_only_jit_says_how_kernels_are_compiled(module: str) -> None:
    compilers = {"njit", "jit", "vectorize", "guvectorize", "stencil", "cfunc", "prange"}
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("numba", "nb"):
            spelled = {node.attr}
        elif isinstance(node, ast.ImportFrom) and node.module == "numba":
            spelled = {alias.name for alias in node.names}
        else:
            continue
        assert not spelled & compilers, f"line {node.lineno}: netdef.jit has kernel, serial, prange"


@pytest.mark.parametrize(
    ("folder", "decorator", "shared"),
    [
        ("layers", "register", "common"),
        ("solvers", "rule", "rule.py"),
        ("fused", "fuses", "common.py"),
    ],
)
def test_every_file_registers_what_it_holds(folder: str, decorator: str, shared: str) -> None:
    sources = set((REPOSITORY / "netdef" / folder).glob("*.py"))
    silent = {
        source.name
        for source in sources
        if not any(
            ast.unparse(call).partition("(")[0] == decorator
            for node in ast.parse(source.read_text("utf-8")).body
            if isinstance(node, ast.ClassDef)
            for call in node.decorator_list
        )
    }
    assert silent <= {"__init__.py", shared}, f"what files of {folder}/ share stands in {shared}"


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("graph", "import netdef.plan"),
        ("graph", "from netdef.plan import plan"),
        ("graph", "from netdef import plan as p"),
        ("graph", "def later():\n    from netdef import net"),
        ("graph", "try:\n    import netdef\nexcept ImportError:\n    pass"),
        ("layers", "from netdef.program import Program"),
        ("kernels", "from netdef.layers.common import axes"),
        ("graph", "from .plan import plan"),
        ("graph", "from . import plan"),
        ("graph", "from netdef import Net"),
        ("solver", "from netdef_cli.main import main"),
        ("plan", "if TYPE_CHECKING:\n    pass\nelse:\n    import netdef.net"),
        ("layers", "import numba"),
        ("errors", "from rich.console import Console"),
    ],
)
def test_a_wrong_import_is_found(room: str, code: str) -> None:
    assert len(violations(room, code)) == 1


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("layer", "import netdef.layers"),
        ("graph", "from netdef.prototxt import Positions"),
        ("prototxt", "from netdef.prototxt_tokens import Lines"),
        ("events", "if TYPE_CHECKING:\n    from netdef.plan import Plan"),
        ("layers", "from netdef.layers.common.axes import axis_of"),
    ],
)
def test_a_right_import_is_let_pass(room: str, code: str) -> None:
    assert violations(room, code) == []
