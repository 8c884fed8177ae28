"""Scans in, scans out: volumes with their geometry, and what is done with them in a hospital."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
