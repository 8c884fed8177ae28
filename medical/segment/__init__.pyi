from .box import Box as Box
from .box import head_neck_box as head_neck_box
from .intensity import Intensity as Intensity
from .pair import Pair as Pair
from .pair import paired as paired
from .pair import to_grid as to_grid
from .phantoms import phantom as phantom

__all__ = ["Box", "Intensity", "Pair", "head_neck_box", "paired", "phantom", "to_grid"]
