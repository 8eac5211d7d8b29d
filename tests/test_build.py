"""What is tested is what the sources say: no compiled module is older than a file it is made of."""

import runpy
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import fastlstm

ROOT = Path(__file__).parents[1]
BUILD = "python setup.py build_ext --inplace"

pytestmark = pytest.mark.skipif(
    Path(fastlstm.__file__).parent != ROOT / "src" / "fastlstm", reason="not built in this checkout"
)


@pytest.fixture
def extensions(monkeypatch):
    """Return the extensions that setup.py names, without building them."""
    build = pytest.importorskip("Cython.Build")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(build, "cythonize", lambda modules, **_: modules)
    monkeypatch.setattr(pytest.importorskip("setuptools"), "setup", lambda **_: None)
    return runpy.run_path("setup.py")["EXTENSIONS"]


def stale(extension):
    """Return the sources that have changed since a module was built."""
    place = ROOT / "src" / extension.name.replace(".", "/")
    built = place.with_name(place.name + EXTENSION_SUFFIXES[0])
    if not built.exists():  # not every compiler makes all of them
        return []
    own = place.with_suffix(".pxd")
    sources = [Path(name) for name in (*extension.sources, *extension.depends)]
    sources += [own] if own.exists() else []
    return [str(path) for path in sources if path.stat().st_mtime > built.stat().st_mtime]


def test_compiled_modules_are_not_older_than_their_sources(extensions):
    assert len(extensions) > 4
    changed = {extension.name: stale(extension) for extension in extensions}
    changed = {name: sources for name, sources in changed.items() if sources}
    assert not changed, f"build again: {BUILD}"


def test_every_source_belongs_to_a_module(extensions):
    """Or a change of it would go unseen, by the build as well."""
    known = {Path(name) for each in extensions for name in (*each.sources, *each.depends)}
    known = {path.resolve() for path in known}
    machine = {"neon", "avx2", "avx512", "sse2"}  # not all of them are of this one
    for path in [*ROOT.glob("csrc/**/*.[ch]"), *ROOT.glob("src/**/*.p[yx][xi]")]:
        if not any(name in path.stem for name in machine) and path.suffix != ".pyi":
            assert path in known, path.relative_to(ROOT)


def test_the_extras_bring_what_builds_and_checks():
    """An old setuptools in a new environment fails to build, and the tests would run what was."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert set(project["build-system"]["requires"]) <= set(extras["test"])
    brought = set(extras["dev"][0].removeprefix("fastlstm[").removesuffix("]").split(","))
    assert brought == set(extras) - {"dev", "docs", "keras", "torch"}  # those two are large
    assert "mypy" in extras["dev"]
