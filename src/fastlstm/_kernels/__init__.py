"""The vector kernels, a module for each instruction set and element type."""
