"""Scans in, scans out: the room for DICOM and NIfTI volumes, on top of `restore`."""
