"""Every import goes down the house: the rule of layers, read from the sources."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOME = ROOT / "src" / "fastlstm"

# From the ground up. A module may use its own floor and those below it.
FLOORS = [
    {"_kernels"},
    {"_core"},
    {"_layers"},
    # makes layers out of arrays, for exchange, onnx and files
    {"", "functional", "layers", "capi", "training", "_layers.from_params"},
    {"estimators", "torch", "keras", "onnx", "exchange", "files", "export", "plot", "threadpool"},
    {"_commands", "__main__"},
]
LEAVES = {"_args", "_version"}  # any Python may use them; they use none of ours
# The specification uses only _args. Below the public floor nobody computes with it.
SPECIFICATION = "reference"
# "" is fastlstm/__init__.py: what it hands on is public, and threadpool it registers
DOOR = {("", "threadpool")}
# The only Python that compiled modules may name: a constant.
LEAVES_OF_COMPILED = {"_version"}

COMPILED_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(fastlstm[\w.]*)[ \t]+(c?import)[ \t]+\(?([\w \t,]*)"
    r"|(c?import)[ \t]+(fastlstm[\w.]*))|import_module\(f?[\"'](fastlstm[\w.]*)",
    re.MULTILINE,
)


def name_of(path):
    """Return the module of a Python file, without fastlstm."""
    parts = path.relative_to(HOME).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in HOME.rglob("*.py")}
COMPILED = {name_of(path) for end in ("pyx", "pxd") for path in HOME.rglob(f"*.{end}")} - {""}


def without_package(target):
    return target.removeprefix("fastlstm").removeprefix(".")


def targets(package, names):
    """Return the modules that ``from package import names`` uses."""
    inside = {f"{package}.{name}".lstrip(".") for name in names}
    submodules = inside & (MODULES | COMPILED)
    return submodules | ({package} if submodules != inside else set())


def imports_of(path):
    """Return our modules that a Python file imports, wherever it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "fastlstm"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports here are absolute"
            if node.module.split(".")[0] == "fastlstm":
                package = without_package(node.module)
                found |= targets(package, [a.name for a in node.names])
    return {without_package(target) for target in found}


def imports_of_compiled(text):
    """Return our modules that Cython source imports, and those it cimports."""
    found = {"import": set(), "cimport": set()}
    for package, how, names, also, module, by_name in COMPILED_IMPORT.findall(text):
        if package and how == "import":
            names = [name.strip() for name in names.split(",")]
            found[how] |= targets(without_package(package), names)
        else:
            target = without_package(package or module or by_name)
            found[how or also or "import"].add(target.rstrip("."))
    return found["import"], found["cimport"]


def longest(name, names):
    """Return the one of `names` that is `name` or the nearest package around it."""
    while name not in names and "." in name:
        name = name.rpartition(".")[0]
    return name if name in names else None


def floor_of(name):
    """Return the number of a module's floor."""
    known = {prefix: floor for floor, prefixes in enumerate(FLOORS) for prefix in prefixes}
    nearest = longest(name, known)
    assert nearest is not None, f"fastlstm.{name} stands on no floor: see FLOORS"
    return known[nearest]


def may_import(name, target):
    """Whether one of our Python modules may import another."""
    own, others = name.split(".")[0], target.split(".")[0]
    if own in LEAVES or own == SPECIFICATION:
        return own == others or (own == SPECIFICATION and others == "_args")
    if others in LEAVES or (name, target) in DOOR:
        return True
    if others == SPECIFICATION:
        return floor_of(name) >= floor_of("")
    return floor_of(target) <= floor_of(name)


@pytest.mark.parametrize("path", sorted(HOME.rglob("*.py")), ids=name_of)
def test_python_imports_go_down(path):
    name = name_of(path)
    wrong = {target for target in imports_of(path) if not may_import(name, target)}
    assert not wrong, f"fastlstm.{name} may not import {sorted(wrong)}"


@pytest.mark.parametrize("room", ["_kernels", "_core"])
def test_nothing_compiled_imports_our_python(room):
    allowed = {*COMPILED, "_kernels", *LEAVES_OF_COMPILED}  # _kernels: one of them, by name
    if room == "_kernels":
        allowed = set()
    sources = [p for p in (HOME / room).rglob("*") if p.suffix in (".pyx", ".pxi", ".pxd")]
    assert len(sources) > 5
    for path in sources:
        imported, cimported = imports_of_compiled(path.read_text())
        where = f"{path.relative_to(HOME)} may not import"
        assert imported <= allowed, f"{where} {sorted(imported - allowed)}"
        # "" is __init__.pxd, the declarations of the C API
        assert cimported <= allowed | {""}, f"{where} {sorted(cimported - allowed)}"


@pytest.mark.parametrize("room", ["csrc", "src/fastlstm/_kernels"])
def test_includes_go_down(room):
    below = {path.name for folder in ("csrc", room) for path in (ROOT / folder).rglob("*.*")}
    pattern = re.compile(r'^ *(?:#include|include|cdef extern from) "(.+?)"', re.MULTILINE)
    for end in ("h", "pxi", "pyx", "c" if room == "csrc" else "pxd"):  # .c: Cython's own
        for path in (ROOT / room).rglob(f"*.{end}"):
            names = {Path(name).name for name in pattern.findall(path.read_text())}
            assert names <= below, f"{path.relative_to(ROOT)} may not include {names - below}"


@pytest.mark.parametrize(
    ("name", "target", "allowed"),
    [
        ("layers", "_layers.recurrent", True),
        ("training._truncated", "_layers.recurrent", True),
        ("_layers.recurrent", "layers", False),
        ("_core.calls", "_layers.recurrent", False),
        ("_core.calls", "_args.arrays", True),
        ("_args.arrays", "_args.numbers", True),
        ("_args.arrays", "_core.calls", False),
        ("reference._lstm", "_args.arrays", True),
        ("reference._lstm", "functional", False),
        ("functional", "reference", True),
        ("_core.calls", "reference", False),
        ("onnx._export", "_commands.command", False),
        ("_commands.bench.bench", "onnx", True),
        ("functional", "files", False),
    ],
)
def test_the_rule_itself(name, target, allowed):
    assert may_import(name, target) == allowed


def test_the_sources_are_read():
    assert "_core.calls" in imports_of(HOME / "_layers" / "recurrent.py")
    text = "from fastlstm._args.arrays import check\n  import numpy\ncimport fastlstm._core.blas\n"
    found = imports_of_compiled(text + 'x = import_module(f"fastlstm._kernels.{isa}")')
    assert found == ({"_args.arrays", "_kernels"}, {"_core.blas"})


def test_every_file_of_tests_stands_in_the_table_of_promises():
    here = Path(__file__).parent
    table = (here / "README.md").read_text()
    assert not [path for path in here.glob("test_*.py") if f"`{path.stem}`" not in table]
