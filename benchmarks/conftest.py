"""The shapes of the benchmarks, and --shape for others."""

DEFAULT_SHAPES = ["100,1,32,32", "100,32,64,64", "100,32,256,256"]


def pytest_addoption(parser):
    """Add --shape."""
    parser.addoption(
        "--shape",
        action="append",
        metavar="T,B,I,H",
        help=f"sizes to measure, repeatable (default: {' '.join(DEFAULT_SHAPES)})",
    )


def pytest_generate_tests(metafunc):
    """Run each benchmark on each shape."""
    if "shape" in metafunc.fixturenames:
        shapes = metafunc.config.getoption("--shape") or DEFAULT_SHAPES
        shapes = [tuple(map(int, shape.split(","))) for shape in shapes]
        metafunc.parametrize("shape", shapes, ids=str)


def pytest_benchmark_update_machine_info(config, machine_info):
    """Store with saved results what is needed to read them: versions, threads, instruction set."""
    import numpy
    import scipy

    import fastlstm
    from fastlstm._core import runtime

    machine_info |= {
        "fastlstm": fastlstm.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "threads": fastlstm.get_num_threads(),
        "isa": runtime.get_isa(),
    }
