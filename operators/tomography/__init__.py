"""Rays through pixels: geometry, the sparse matrix of Joseph's method, filtered back-projection."""
