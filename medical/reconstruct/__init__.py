"""Whole scans restored: a task, a prior of slices, a solver of volumes, and files that survive."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
