"""What the instrument did: measurement operators `A` and their noise, all deepinv physics.

One file an instrument: blur, lens, mask, stripes, downsample, compressed_sensing, ct, pet, mri,
noncartesian, spectral, fusion, cassi, photographic, jpeg, phase, denoise. Behind CT and PET stands
`tomography/`, behind MRI `fourier/`; parts that several share are svd, separable, convolution,
resampling, groups, kernels and transforms. Around all of them: slices, noise, linalg, repaired,
parse, validate, and `doctor/`, which checks them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
