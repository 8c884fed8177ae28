"""What the instrument did: measurement operators `A` and their noise, all deepinv physics.

    one file an instrument   blur lens mask stripes downsample compressed_sensing ct pet mri
                             noncartesian spectral fusion cassi photographic jpeg phase denoise
    one file a part          svd separable convolution resampling groups kernels transforms
    behind CT and PET        tomography/
    behind MRI               fourier/
    around all of them       slices noise linalg repaired parse validate, and doctor/ (the check)
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
