from .reading import read as read
from .source import NiftiSource as NiftiSource
from .writing import write as write

__all__ = ["NiftiSource", "read", "write"]
