from .blur import blur as blur
from .cassi import cassi as cassi
from .compressed_sensing import compressed_sensing as compressed_sensing
from .ct import ct as ct
from .denoise import denoise as denoise
from .doctor.check import Report as Report
from .doctor.check import Row as Row
from .doctor.check import check as check
from .doctor.sweep import Sweep as Sweep
from .doctor.sweep import Trial as Trial
from .doctor.sweep import sweep as sweep
from .downsample import downsample as downsample
from .fourier.coils import birdcage as birdcage
from .fourier.coils import estimate_coil_maps as estimate_coil_maps
from .fusion import fusion as fusion
from .jpeg import jpeg as jpeg
from .lens import lens as lens
from .linalg import ConvergenceWarning as ConvergenceWarning
from .mask import mask as mask
from .mri import mri as mri
from .noise import GaussianNoise as GaussianNoise
from .noise import PoissonNoise as PoissonNoise
from .noise import RicianNoise as RicianNoise
from .noise import TransmissionNoise as TransmissionNoise
from .noise import measure as measure
from .noise import noise_sigma as noise_sigma
from .noncartesian import noncartesian as noncartesian
from .parse import available as available
from .parse import image_shape_from as image_shape_from
from .parse import parse as parse
from .parse import same_but_seed as same_but_seed
from .pet import pet as pet
from .phase import phase as phase
from .photographic import hdr as hdr
from .photographic import saturate as saturate
from .slices import slices as slices
from .spectral import decolorise as decolorise
from .spectral import response as response
from .stripes import stripes as stripes
from .svd import SVD as SVD
from .svd import svd as svd
from .thick import thick as thick

__all__ = [
    "SVD",
    "ConvergenceWarning",
    "GaussianNoise",
    "PoissonNoise",
    "Report",
    "RicianNoise",
    "Row",
    "Sweep",
    "TransmissionNoise",
    "Trial",
    "available",
    "birdcage",
    "blur",
    "cassi",
    "check",
    "compressed_sensing",
    "ct",
    "decolorise",
    "denoise",
    "downsample",
    "estimate_coil_maps",
    "fusion",
    "hdr",
    "image_shape_from",
    "jpeg",
    "lens",
    "mask",
    "measure",
    "mri",
    "noise_sigma",
    "noncartesian",
    "parse",
    "pet",
    "phase",
    "response",
    "same_but_seed",
    "saturate",
    "slices",
    "stripes",
    "svd",
    "sweep",
    "thick",
]
