"""What stands where a prior would, for solvers that have none."""

from torch import Tensor

from priors import Card, Denoiser

FEWEST = 8  # bands, below which a few spectra explain nothing; and pixels a side, for the networks


class Untrained(Denoiser):
    """No prior: the units of cubes in [0, 1], and what an untrained network can draw."""

    def __init__(self) -> None:
        super().__init__(
            Card(
                name="untrained network",
                spatial_dims=2,
                licence="none needed",
                training_data="none",
                description="no prior; a network is fitted to the measurement alone",
            )
        )

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Refuse: there is nothing to denoise with.

        Raises:
            ValueError: always.
        """
        raise ValueError("an untrained network is no denoiser; choose a prior that is.")

    def refuse(self, shape: tuple[int, ...]) -> str | None:
        """Say why a cube `(B, C, H, W)` is not for these networks; see `Denoiser.refuse`."""
        if len(shape) != 4:
            return (
                f"the images have {len(shape) - 2} spatial dimensions, expected cubes (B, bands, "
                "H, W); put what is like a spectrum first."
            )
        if shape[1] < FEWEST:
            return (
                f"the cube has {shape[1]} bands, expected at least {FEWEST}: a few spectra must "
                "explain many; check the order of axes (bands first), or choose another solver."
            )
        if min(shape[2:]) < FEWEST:
            return (
                f"the cube is {shape[2]}x{shape[3]} pixels, expected at least {FEWEST} a side for "
                "the networks; check the order of axes (bands first), or take more of the scene."
            )
        return None
