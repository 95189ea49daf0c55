"""Sweeps: a file that names many runs, and Ray, which trains and evaluates them in processes of their own.

- file.py: what stands in the file
- grid.py: the runs that follow from it
- found.py: what of them is done already
- worker.py: one run, in its own process
- status.py: how far a run is, told by its process
- driver.py: handing runs to Ray, and again when they crash
- table.py: how far the sweep is
"""

from memspan.sweeps.file import SweepFile, read_sweep
from memspan.sweeps.grid import SweepRun, expand

__all__ = ["SweepFile", "SweepRun", "expand", "read_sweep"]
