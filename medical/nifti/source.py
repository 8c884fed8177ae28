"""What is kept of a NIfTI file: how it stored numbers, never what it said about the patient."""

from dataclasses import dataclass

import numpy as np

from medical.volume import Source


@dataclass(frozen=True, kw_only=True)
class NiftiSource(Source):
    """How a NIfTI file stored a volume.

    Free text (descrip, aux_file, intent_name, db_name) and extensions are not kept: they often
    hold names and dates.

    Attributes:
        dtype: of the voxels in the file, in this machine's byte order.
        slope: value = slope * stored + intercept.
        intercept: see `slope`.
        space: code of the world: 1 scanner, 2 another scan, 3 Talairach, 4 MNI, 5 other template.
        intent: code of what the numbers mean, for example 1002 for labels.
        version: 1 or 2.
    """

    dtype: np.dtype
    slope: float = 1.0
    intercept: float = 0.0
    space: int = 1
    intent: int = 0
    version: int = 1
