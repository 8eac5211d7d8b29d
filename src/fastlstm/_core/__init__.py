"""The compiled core: time loops, BPTT and single steps over the kernels, and the calls of them."""
