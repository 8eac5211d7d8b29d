"""The compiled core: time loops, BPTT and single steps over the kernels, and the calls of them."""

from fastlstm._args.cpus import default_threads
from fastlstm._core import runtime

runtime.begin_threads(*default_threads())
