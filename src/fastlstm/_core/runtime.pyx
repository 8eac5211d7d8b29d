# cython: language_level=3
"""The instruction set and the threads in use, and workspace for calls.

Decisions:
a) The instruction set is chosen once, at import: FASTLSTM_ISA, else the best that the CPU, its
   operating system and this build have. `set_isa` is for tests and benchmarks.
b) Threads are a private team, see csrc/team.h: one, until the package says how many CPUs there are
   for it, see _args/cpus.py; small calls take fewer, see `threads_for`.
c) Workspace and tapes of finished calls are kept for the next ones, within bounds.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.pycapsule cimport PyCapsule_GetPointer

import importlib
import importlib.util
import os
import platform
import sys

cdef extern from "cpu.h":
    int cpu_supports(const char *isa)
    int cpu_is_slow_in_bf16()
    void cpu_name(char *name)

cdef extern from "memory.h":
    void *memory_take(size_t size) noexcept nogil
    void memory_free(void *memory) noexcept nogil

cdef extern from "team.h":
    void team_run_lines(const team_lines *work, int threads, long long until) noexcept nogil
    void team_run_phases(const team_phases *work, int threads) noexcept nogil
    long long team_now() noexcept nogil
    int fastlstm_get_num_threads() noexcept nogil
    void fastlstm_set_num_threads(int threads) noexcept nogil
    int TEAM_MOST_THREADS

ISAS = ("avx512", "avx2", "neon", "sse2", "scalar")  # best first
# what a CPU with a set may have besides, for numbers of fewer bits, best first
FURTHER_ISAS = {
    "bfloat16": {"avx512": ("amx", "avx512bf16")},
    "int8": {"avx512": ("avx512vnni",), "avx2": ("avxvnni",)},
}

cdef const void *_kernels[2]
cdef dict _reduced = {}  # by compute dtype: the instruction set and its kernels, once used
cdef void *_blas[2]
cdef object _isa = None
cdef object _threads_at_first = (1, "one until told")  # the number, and where it comes from


cdef const void *kernels_of(bint double_precision) noexcept nogil:
    """The kernel_table of float64 or float32 in use."""
    return _kernels[double_precision]


cdef const void *kernels_in(str compute_dtype) except NULL:
    """The kernel_table of a compute dtype, by default the best that goes with the set in use."""
    if compute_dtype not in FURTHER_ISAS:
        raise ValueError(
            f"compute_dtype: expected None, 'bfloat16' or 'int8', got {compute_dtype!r}")
    if compute_dtype not in _reduced:
        available = available_isas(compute_dtype)
        isas = *FURTHER_ISAS[compute_dtype].get(_isa, ()), _isa
        if cpu_is_slow_in_bf16():
            isas = [isa for isa in isas if isa != "avx512bf16"]
        set_isa(next(isa for isa in isas if isa in available), compute_dtype)
    return PyCapsule_GetPointer(_reduced[compute_dtype][1], "fastlstm.kernels")


cdef const void *kernels_named(isa, bint double_precision) except NULL:
    """Those of an instruction set that this build has and the CPU can run."""
    module = importlib.import_module(_kernel_modules(isa)[double_precision])
    return PyCapsule_GetPointer(module.kernels, "fastlstm.kernels")


cdef void *blas_of(bint double_precision) noexcept nogil:
    """`gemm` of _core/blas.pyx; there where the kernels in use, or any before them, prefer it."""
    return _blas[double_precision]


cdef void set_blas(void *gemm_float, void *gemm_double) noexcept:
    _blas[:] = [gemm_float, gemm_double]


def _kernel_modules(isa):
    """Names of the modules with the kernels of `isa` for float32 and float64."""
    return [f"fastlstm._kernels.{isa}_{dtype}" for dtype in ("float32", "float64")]


def _reduced_module(isa, compute_dtype):
    return f"fastlstm._kernels.{isa}_{compute_dtype}"


def available_isas(compute_dtype=None):
    """Names of the instruction sets that this build has and this CPU can run, best first.

    With "bfloat16" or "int8" those of that compute dtype, each set's further instructions first.
    """
    isas = tuple(
        isa for isa in ISAS
        if cpu_supports(isa.encode()) and all(map(importlib.util.find_spec, _kernel_modules(isa)))
    )
    if compute_dtype is None:
        return isas
    further = FURTHER_ISAS[compute_dtype]
    return tuple(
        name for isa in isas for name in (*further.get(isa, ()), isa)
        if cpu_supports(name.encode())
        and importlib.util.find_spec(_reduced_module(name, compute_dtype))
    )


def get_isa(compute_dtype=None):
    """Name of the instruction set in use, or of what serves a compute dtype."""
    if compute_dtype is None:
        return _isa
    kernels_in(compute_dtype)
    return _reduced[compute_dtype][0]


def set_isa(isa, compute_dtype=None):
    """Use another instruction set from the next call on; what is packed already stays as it is.

    With a compute dtype, one of its `available_isas`; all else then uses the set that it belongs
    to.

    Raises
    ------
    ValueError
        If the CPU or this build does not have it.
    """
    global _isa
    available = available_isas(compute_dtype)
    if isa not in available:
        raise ValueError(f"FASTLSTM_ISA: expected one of {', '.join(available)}, got {isa!r}")
    if compute_dtype is not None:
        base = next((of for of, more in FURTHER_ISAS[compute_dtype].items() if isa in more), isa)
        if base != _isa:
            set_isa(base)
        module = importlib.import_module(_reduced_module(isa, compute_dtype))
        _reduced[compute_dtype] = isa, module.kernels
        return
    _reduced.clear()
    cdef int i
    for i, name in enumerate(_kernel_modules(isa)):
        module = importlib.import_module(name)
        if module.prefer_blas:
            importlib.import_module("fastlstm._core.blas")
        _kernels[i] = PyCapsule_GetPointer(module.kernels, "fastlstm.kernels")
    _isa = isa


def get_num_threads():
    """Return the largest number of threads that a call may use."""
    return fastlstm_get_num_threads()


def set_num_threads(n):
    """Set the largest number of threads that a call may use.

    Results do not depend on it. The default is the smallest of the number of CPUs that the process
    may use, the CPU quota of its control groups (cgroups), rounded up, and the environment variable
    FASTLSTM_NUM_THREADS, as they are when fastlstm is imported. Small calls use fewer.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1, or more than the 256 that there may be.

    Examples
    --------
    >>> import fastlstm
    >>> before = fastlstm.get_num_threads()
    >>> fastlstm.set_num_threads(1)
    >>> fastlstm.get_num_threads()
    1
    >>> fastlstm.set_num_threads(before)
    """
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: expected an integer, got {type(n).__name__}")
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    if n > TEAM_MOST_THREADS:
        raise ValueError(f"n: expected at most {TEAM_MOST_THREADS}, got {n}")
    fastlstm_set_num_threads(n)


def begin_threads(n, source):
    """Set the default number of threads and keep where it comes from, for `show_config`."""
    global _threads_at_first
    set_num_threads(min(n, TEAM_MOST_THREADS))  # a machine may have more CPUs
    _threads_at_first = get_num_threads(), source


def show_config():
    """Print version, instruction set, threads and build, for bug reports and benchmarks.

    Examples
    --------
    >>> import fastlstm
    >>> fastlstm.show_config()  # doctest: +ELLIPSIS
    fastlstm ...
    """
    import numpy
    import scipy

    from fastlstm._version import __version__

    cdef char name[49]
    cpu_name(name)
    cpu = name.decode("ascii", "replace").strip() or platform.machine()
    print(f"fastlstm {__version__}, NumPy {numpy.__version__}, SciPy {scipy.__version__}, "
          f"Python {sys.version.split()[0]}")
    print(f"cpu: {cpu}")
    print(f"instruction set: {_isa} (available: {', '.join(available_isas())})")
    for compute_dtype in FURTHER_ISAS:
        print(f"{compute_dtype}: {get_isa(compute_dtype)} "
              f"(available: {', '.join(available_isas(compute_dtype))})")
    threads, source = _threads_at_first
    if get_num_threads() == threads:
        print(f"threads: {threads} ({source})")
    else:
        print(f"threads: {get_num_threads()} (set; at first {threads}: {source})")


cdef void run_lines(const team_lines *work, int threads, long long until) noexcept nogil:
    team_run_lines(work, threads, until)


cdef void run_phases(const team_phases *work, int threads) noexcept nogil:
    team_run_phases(work, threads)


cdef long long now() noexcept nogil:
    return team_now()


cdef int threads_for(double operations) noexcept nogil:
    """How many threads a call of so many multiply-adds gets: waking one costs some 300,000."""
    cdef int threads = fastlstm_get_num_threads()
    cdef double most = operations / 300_000
    if most < 1:
        return 1
    return threads if most > threads else <int>most


cdef void *new_block(size_t size) noexcept nogil:
    """Memory at 64 bytes that is nobody's but the caller's, or NULL."""
    return memory_take(size)


cdef void free_block(void *memory) noexcept nogil:
    memory_free(memory)


cdef enum:
    SPARE_BLOCKS = 32
    SPARE_BYTES = 256 << 20

# Blocks of buffers that are gone, the newest last. Fresh memory costs a page fault per 4 kB, which
# is a good part of the time of a training step. The GIL guards them.
cdef Block _spare[SPARE_BLOCKS]
cdef int _spare_blocks = 0
cdef size_t _spare_bytes = 0


cdef Block pop_spare(int i) noexcept:
    global _spare_blocks, _spare_bytes
    cdef Block block = _spare[i]
    _spare_blocks -= 1
    _spare_bytes -= block.size
    for i in range(i, _spare_blocks):
        _spare[i] = _spare[i + 1]
    return block


cdef class Buffer:
    def __cinit__(self, size_t size):
        cdef int i
        size = size_padded(max(size, <size_t>1))
        for i in range(_spare_blocks - 1, -1, -1):
            if size <= _spare[i].size <= 2 * size:
                self.block = pop_spare(i)
                return
        self.block.memory = memory_take(size)
        if self.block.memory == NULL:
            raise MemoryError(
                "no memory for arrays of these sizes" if size == NO_SIZE
                else f"no memory for {size} bytes")
        self.block.size = size

    def __dealloc__(self):
        global _spare_blocks, _spare_bytes
        if self.block.memory == NULL:
            return
        if self.block.size > SPARE_BYTES:
            memory_free(self.block.memory)
            return
        while _spare_blocks == SPARE_BLOCKS or _spare_bytes + self.block.size > SPARE_BYTES:
            memory_free(pop_spare(0).memory)
        _spare[_spare_blocks] = self.block
        _spare_blocks += 1
        _spare_bytes += self.block.size

    def __getbuffer__(self, Py_buffer *view, int flags):
        memory_open(self.block.memory, self.block.size)  # who copies it copies gaps, too
        PyBuffer_FillInfo(view, self, self.block.memory, self.block.size, 0, flags)


set_isa(os.environ.get("FASTLSTM_ISA") or available_isas()[0])
