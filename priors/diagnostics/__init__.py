"""What a prior knows about itself: identities of the exact denoiser, each a test of a network.

    calibration   its error is least at the true sigma and as large as it expects, pixel by pixel
    conservative  its Jacobian is symmetric
    spectrum      which directions it keeps and which it takes for noise
    dimension     how many numbers of an image it keeps
    memorisation  whether it knows the distribution or its training images
    level         all of these at one noise level
    verdicts      what to conclude from them
    report        the whole diagnosis

Noise and probes are drawn on the CPU from `seed` or `generator`, so a diagnosis repeats on any
device.
"""

from priors.diagnostics.calibration import (
    Calibration,
    SigmaCheck,
    pixel_calibration,
    posterior_variance,
    residual_std,
    sigma_check,
    tweedie_gap,
)
from priors.diagnostics.conservative import circulation, exact_asymmetry, jacobian_asymmetry
from priors.diagnostics.dimension import (
    Dimensions,
    Estimate,
    dimensions,
    effective_dimension,
    sure,
)
from priors.diagnostics.level import Level, levels
from priors.diagnostics.memorisation import (
    Agreement,
    Gap,
    Neighbours,
    agreement,
    generalisation_gap,
    neighbours,
    two_halves,
)
from priors.diagnostics.report import Diagnosis, diagnose
from priors.diagnostics.spectrum import Homogeneity, Spectrum, homogeneity, shrinkage_spectrum
from priors.diagnostics.verdicts import Verdict

__all__ = [
    "Agreement",
    "Calibration",
    "Diagnosis",
    "Dimensions",
    "Estimate",
    "Gap",
    "Homogeneity",
    "Level",
    "Neighbours",
    "SigmaCheck",
    "Spectrum",
    "Verdict",
    "agreement",
    "circulation",
    "diagnose",
    "dimensions",
    "effective_dimension",
    "exact_asymmetry",
    "generalisation_gap",
    "homogeneity",
    "jacobian_asymmetry",
    "levels",
    "neighbours",
    "pixel_calibration",
    "posterior_variance",
    "residual_std",
    "shrinkage_spectrum",
    "sigma_check",
    "sure",
    "tweedie_gap",
    "two_halves",
]
