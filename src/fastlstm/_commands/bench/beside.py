"""Neighbours for `fastlstm bench --beside`: processes that do nothing but take time of a core."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

# it ends with the process that started it, however that ends
BUSY = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6):
        pass
"""


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    command = [sys.executable, "-c", BUSY, str(os.getpid())]
    processes = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
