"""threadpoolctl sees our threads and limits them."""

import subprocess
import sys

import pytest

import fastlstm
from fastlstm._core import runtime

threadpoolctl = pytest.importorskip("threadpoolctl", minversion="3.2")

from helpers import forced_threads  # noqa: E402

import fastlstm.threadpool  # noqa: E402


def ours():
    """Return what threadpoolctl says about us; there is one entry."""
    (info,) = (i for i in threadpoolctl.threadpool_info() if i["user_api"] == "fastlstm")
    return info


def test_info_shows_threads_version_and_file():
    with forced_threads(3):
        info = ours()
    assert info["num_threads"] == 3
    assert info["version"] == fastlstm.__version__
    assert info["internal_api"] == "fastlstm"
    assert info["filepath"] == runtime.__file__


@pytest.mark.parametrize("options", [{}, {"user_api": "fastlstm"}], ids=["all", "ours"])
def test_a_limit_holds_within_its_block(options):
    with forced_threads(3):
        with threadpoolctl.threadpool_limits(limits=1, **options):
            assert fastlstm.get_num_threads() == ours()["num_threads"] == 1
        assert fastlstm.get_num_threads() == ours()["num_threads"] == 3


@pytest.mark.parametrize("limits", [{"fastlstm": 2}, [{"prefix": "runtime.", "num_threads": 2}]])
def test_limits_by_name(limits):
    with forced_threads(3), threadpoolctl.threadpool_limits(limits=limits):
        assert fastlstm.get_num_threads() == 2


@pytest.mark.parametrize("user_api", ["blas", "openmp"])
def test_limits_of_others_leave_ours(user_api):
    with forced_threads(3), threadpoolctl.threadpool_limits(limits=1, user_api=user_api):
        assert fastlstm.get_num_threads() == 3


@pytest.mark.parametrize(("limit", "expected"), [(0, 1), (-1, 1), (1 << 20, 256)])
def test_limits_out_of_range_become_the_nearest(limit, expected):
    with forced_threads(3), threadpoolctl.threadpool_limits(limits=limit, user_api="fastlstm"):
        assert fastlstm.get_num_threads() == expected


IMPORTS = {
    "threadpoolctl first": ("import threadpoolctl, fastlstm", True),
    "threadpoolctl after": ("import fastlstm, threadpoolctl", False),
    "by hand": ("import fastlstm, threadpoolctl; import fastlstm.threadpool", True),
    "an old threadpoolctl": (
        "import sys, types; sys.modules['threadpoolctl'] = types.ModuleType('threadpoolctl')\n"
        "import fastlstm; del sys.modules['threadpoolctl']; import threadpoolctl",
        False,
    ),
}


@pytest.mark.parametrize("statements", IMPORTS.values(), ids=IMPORTS)
def test_registered_with_the_import(statements):
    imports, registered = statements
    code = f"{imports}\nprint([i['user_api'] for i in threadpoolctl.threadpool_info()])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("fastlstm" in out.stdout) == registered


def test_registered_with_the_estimators():
    pytest.importorskip("sklearn")
    code = "import fastlstm.estimators as e, threadpoolctl; print(threadpoolctl.threadpool_info())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'user_api': 'fastlstm'" in out.stdout


def test_fastlstm_alone_imports_no_threadpoolctl():
    code = "import sys, fastlstm; sys.exit('threadpoolctl' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_its_absence_is_explained():
    code = "import sys; sys.modules['threadpoolctl'] = None; import fastlstm.threadpool"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: fastlstm.threadpool needs threadpoolctl 3.2 or later" in out.stderr
