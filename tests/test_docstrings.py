"""What is public says what goes in and what comes out, in the form that numpydoc validates."""

import importlib
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import fastlstm

validate = pytest.importorskip("numpydoc.validate").validate
PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
CONFIG = PYPROJECT["tool"]["numpydoc_validation"]


def public_modules():
    """Return the names of modules that users import; of those whose library is not here, none."""
    for module in pkgutil.walk_packages(fastlstm.__path__, "fastlstm."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            try:
                importlib.import_module(module.name)
            except ImportError:
                continue
            yield module.name


def public_names(module):
    """Return the names of a module's functions, classes, their methods and properties."""
    owner = importlib.import_module(module)
    own = [k for k, v in vars(owner).items() if getattr(v, "__module__", None) == module]
    for name in getattr(owner, "__all__", [k for k in own if not k.startswith("_")]):
        value = getattr(owner, name)
        if inspect.isclass(value):
            for part, member in vars(value).items():
                if not part.startswith("_") and (
                    inspect.isfunction(member) or isinstance(member, property)
                ):
                    yield f"{module}.{name}.{part}"
        if inspect.isclass(value) or inspect.isfunction(value):
            yield f"{module}.{name}"


@pytest.mark.parametrize("module", ["fastlstm", *public_modules()])
def test_parameters_and_results_are_documented(module):
    wrong = []
    for name in public_names(module):
        if not any(re.search(pattern, name) for pattern in CONFIG["exclude"]):
            errors = validate(name)["errors"]
            wrong += [f"{name}: {text}" for code, text in errors if code in CONFIG["checks"]]
    assert not wrong, "\n".join(wrong)
