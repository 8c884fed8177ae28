from .blur import blur as blur
from .check import Report as Report
from .check import Row as Row
from .check import check as check
from .compressed_sensing import compressed_sensing as compressed_sensing
from .ct import ct as ct
from .denoise import denoise as denoise
from .downsample import downsample as downsample
from .linalg import ConvergenceWarning as ConvergenceWarning
from .mask import mask as mask
from .mri import birdcage as birdcage
from .mri import mri as mri
from .noise import GaussianNoise as GaussianNoise
from .noise import PoissonNoise as PoissonNoise
from .noise import RicianNoise as RicianNoise
from .noise import TransmissionNoise as TransmissionNoise
from .noise import measure as measure
from .noise import noise_sigma as noise_sigma
from .parse import available as available
from .parse import image_shape_from as image_shape_from
from .parse import parse as parse
from .spectral import decolorise as decolorise
from .svd import SVD as SVD
from .svd import svd as svd

__all__ = [
    "SVD",
    "ConvergenceWarning",
    "GaussianNoise",
    "PoissonNoise",
    "Report",
    "RicianNoise",
    "Row",
    "TransmissionNoise",
    "available",
    "birdcage",
    "blur",
    "check",
    "compressed_sensing",
    "ct",
    "decolorise",
    "denoise",
    "downsample",
    "image_shape_from",
    "mask",
    "measure",
    "mri",
    "noise_sigma",
    "parse",
    "svd",
]
