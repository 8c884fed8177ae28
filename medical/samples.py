"""Real scans that installed packages carry; nothing is ever downloaded."""

import importlib.util
import os
import plistlib
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.parsers.expat import ExpatError

import numpy as np
import torch

from medical import nifti
from medical.refusal import Refusal
from medical.volume import Volume

CT_HEAD = "RESTORE_CT_HEAD"
"""Environment variable that says where `Cranium.inv3` is, when not where Debian puts it."""

_INSTALLED = Path("/usr/share/doc/invesalius-examples/examples/Cranium.inv3")
_MNI = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
_UNREADABLE = (ExpatError, TypeError, ValueError)  # from a wrong plist
_MOST = 2**26  # bytes of a member that is read
_MEMBERS = 100


def ct_head() -> Volume | None:
    """The head of the package `invesalius-examples` (Debian, GPL-2), None where it is not.

    CT of one person, 256 x 256 x 108 voxels of 0.957 x 0.957 x 1.5 mm. The file does not say which
    side is left: as its program turns pictures upside down, columns are taken to grow to the left
    of the patient, as in DICOM. The world's origin is the middle of the grid.

    Raises:
        FileNotFoundError: the environment variable names no file.
        Refusal: E_SAMPLE: the file is not that one.
    """
    named = os.environ.get(CT_HEAD)
    path = Path(named) if named else _INSTALLED
    if not path.is_file():
        if named:
            raise FileNotFoundError(f"{CT_HEAD} names no file; unset it, or name Cranium.inv3.")
        return None
    try:
        about, matrix = _members(path)
        return _head(about, matrix)
    except (tarfile.TarError, EOFError, zlib.error, OSError, LookupError, *_UNREADABLE) as error:
        raise Refusal(
            "E_SAMPLE", "the file is damaged or not Cranium.inv3; install it again."
        ) from error


def mni_t1() -> Volume | None:
    """The average T1-weighted brain of 152 people in the package `nilearn`, None where it is not.

    197 x 233 x 189 voxels of 1 mm, without skull, in arbitrary units from 0 to 255.
    """
    package = importlib.util.find_spec("nilearn")
    for folder in (package.submodule_search_locations or []) if package else []:
        if (Path(folder) / _MNI).is_file():
            return nifti.read(Path(folder) / _MNI, modality="MR")
    return None


def _members(path: Path) -> tuple[bytes, bytes]:
    """The two members that matter of a packed archive, read one after the other, never unpacked."""
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r|gz") as archive:
        for member, file in _plain(archive):
            name = Path(member.name).name
            if name in ("main.plist", "matrix.dat"):
                found[name] = file.read(_MOST)
            if len(found) == 2:
                break
    return found["main.plist"], found["matrix.dat"]


def _plain(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    for count, member in enumerate(archive):
        if count == _MEMBERS or member.size > _MOST:
            raise tarfile.TarError("too many or too large members")
        file = archive.extractfile(member) if member.isreg() else None
        if file is not None:
            yield member, file


def _head(about: bytes, matrix: bytes) -> Volume:
    """From InVesalius' description and voxels: slices upward, rows to the front."""
    facts = plistlib.loads(about)
    shape, spacing = facts["matrix"]["shape"], np.array(facts["spacing"], dtype=np.float64)
    stored = np.frombuffer(matrix, "<i2").reshape(shape).transpose(2, 1, 0)
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(stored.shape) - 1) / 2
    return Volume(
        data=torch.from_numpy(stored.astype(np.float32))[None],
        affine=affine,
        units="HU",
        modality="CT",
    )
