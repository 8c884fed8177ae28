"""k-space: where it is measured, through which coils, on and off the grid."""
