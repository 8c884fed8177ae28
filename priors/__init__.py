"""What images look like: denoisers `D(x, sigma) = E[x0 | x0 + sigma n = x]` and exact priors."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
