from .deidentification import deidentify as deidentify
from .files import read as read
from .files import write as write
from .refusal import Refusal as Refusal
from .volume import Source as Source
from .volume import Volume as Volume

__all__ = ["Refusal", "Source", "Volume", "deidentify", "read", "write"]
