"""A program of ours in a garbage collection that takes as long as a test wants.

python -m tests.support.programs.long_collection FIFO PYTHON -m MODULE ARGUMENTS

While somebody has FIFO open for writing, the interpreter is held as a collection holds it: no thread runs.
"""

import ctypes
import os
import runpy
import sys
import threading


def collect(fifo: str) -> None:
    """Wait until FIFO is opened; from then on hold the interpreter until it is closed."""
    descriptor = os.open(fifo, os.O_RDONLY)
    ctypes.PyDLL(None).read(descriptor, ctypes.create_string_buffer(1), 1)  # PyDLL: it keeps the lock


def main(fifo: str, _python: str, _m: str, module: str, *arguments: str) -> None:
    threading.Thread(target=collect, args=[fifo], daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
