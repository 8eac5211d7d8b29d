"""What `import fastlstm` brings with it: nothing that a call does not need."""

import inspect
import json
import operator
import subprocess
import sys

import pytest

import fastlstm

LIST = "import sys, json; print(json.dumps(sorted(sys.modules)))"


def modules_after(code):
    """Return the names of the modules of a new process after `code`."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}; {LIST}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout))


def test_no_scipy_metadata_or_ctypes_comes_with_it():
    ours = modules_after("import fastlstm") - modules_after("import numpy")
    assert "fastlstm.layers" in ours
    unwanted = ("scipy", "importlib.metadata", "ctypes", "inspect")
    assert not [m for m in ours if m.startswith(unwanted)]


def test_modules_come_when_first_asked_for():
    for name in ("capi", "reference", "training"):
        assert f"fastlstm.{name}" not in modules_after("import fastlstm")
        assert f"fastlstm.{name}" in modules_after(f"import fastlstm; fastlstm.{name}")


def test_other_names_are_errors():
    import fastlstm

    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = fastlstm.no_such_name


def test_kernels_that_multiply_with_blas_bring_scipy():
    from fastlstm._core import runtime

    if "scalar" in runtime.available_isas():
        assert "scipy.linalg.cython_blas" in modules_after(
            "import fastlstm._core.runtime as r; r.set_isa('scalar')"
        )


@pytest.mark.parametrize(
    "name", ["lstm_forward", "LSTM", "training.mse_loss", "reference.lstm_forward"]
)
def test_help_opens_with_names_and_not_with_what_they_stand_for(name):
    function = operator.attrgetter(name)(fastlstm)
    signature = str(inspect.signature(function))
    assert "Union" not in signature
    assert "numpy._typing" not in signature
    assert len(signature) < 1500
