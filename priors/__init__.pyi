from .adapters import Adapter as Adapter
from .adapters import from_deepinv as from_deepinv
from .adapters import from_diffusers as from_diffusers
from .adapters import from_monai as from_monai
from .channelwise import ChannelWise as ChannelWise
from .denoiser import Card as Card
from .denoiser import Denoiser as Denoiser
from .denoiser import per_image as per_image
from .diagnostics import diagnose as diagnose
from .diagnostics import jacobian_asymmetry as jacobian_asymmetry
from .diagnostics import residual_std as residual_std
from .diagnostics import shrinkage_spectrum as shrinkage_spectrum
from .diagnostics import sigma_check as sigma_check
from .diagnostics import tweedie_gap as tweedie_gap
from .exact import Dirac as Dirac
from .exact import Gaussian as Gaussian
from .exact import GaussianMixture as GaussianMixture
from .faster import fastest as fastest
from .latent import Latent as Latent
from .predictions import from_x0 as from_x0
from .predictions import to_x0 as to_x0
from .product_mixture import ProductMixture as ProductMixture
from .slicewise import SliceWise as SliceWise
from .slicewise import lift as lift
from .tiled import Tiled as Tiled
from .weights import available as available
from .weights import load as load
from .weights import save_network as save_network

__all__ = [
    "Adapter",
    "Card",
    "ChannelWise",
    "Denoiser",
    "Dirac",
    "Gaussian",
    "GaussianMixture",
    "Latent",
    "ProductMixture",
    "SliceWise",
    "Tiled",
    "available",
    "diagnose",
    "fastest",
    "from_deepinv",
    "from_diffusers",
    "from_monai",
    "from_x0",
    "jacobian_asymmetry",
    "lift",
    "load",
    "per_image",
    "residual_std",
    "save_network",
    "shrinkage_spectrum",
    "sigma_check",
    "to_x0",
    "tweedie_gap",
]
