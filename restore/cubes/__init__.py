"""Hyperspectral cubes: their files, what is wrong with them, and restoring them."""
