"""Files made to fill the memory, and how long and large reading them becomes.

As a script it measures folders in a process of its own, so that imports and other tests do not
count: the growth is that of the resident set at its largest since just before a file is read.
"""

import json
import os
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import scans
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
PRIVATE = b"\x09\x00\x10\x10"


def _slice(folder):
    (path, *_) = scans.ct_series(folder, scans.smooth((64, 64, 1)))
    return path, dcmread(path)


def _head(path):
    """Bytes of a file up to its first element of group 8, and the rest."""
    data = path.read_bytes()
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    return data[:start], data[start:]


def _with_element(path, vr, length, value):
    head, rest = _head(path)
    at = rest.index(b"\x10\x00\x10\x00PN")  # group 9 lies before
    element = PRIVATE + vr + b"\0\0" + struct.pack("<I", length) + value
    path.write_bytes(head + rest[:at] + element + rest[at:])


def deflated_zeros(folder):
    path, data = _slice(folder)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.Rows, data.Columns = 16000, 16000
    data.save_as(path, enforce_file_format=True)
    head, rest = _head(path)
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = engine.compress(zlib.decompressobj(-15).decompress(rest))
    start += engine.flush(zlib.Z_FULL_FLUSH)
    zeros = engine.compress(bytes(2**24)) + engine.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(head + start + 64 * zeros + engine.flush())


def _claims(folder, rows, columns, syntax, stream):
    path, data = _slice(folder)
    data.file_meta.TransferSyntaxUID = syntax
    data.Rows, data.Columns = rows, columns
    data.PixelData = encapsulate([stream])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    dcmwrite(path, data, enforce_file_format=True)


def huge_rle(folder):
    _claims(folder, 65535, 65535, RLELossless, struct.pack("<16I", 2, 64, 66, *[0] * 13) + bytes(4))


def _siz(size, tile):
    numbers = (size, size, 0, 0, tile, tile, 0, 0)
    head = b"\xff\x4f\xff\x51" + struct.pack(">HH8IH", 41, 0, *numbers, 1) + b"\x0f\x01\x01"
    return head + b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01\xff\xd9"


def large_jpeg2000(folder):
    _claims(folder, 64, 64, JPEG2000Lossless, _siz(60000, 60000))


def tiled_jpeg2000(folder):
    _claims(folder, 512, 512, JPEG2000Lossless, _siz(512, 1))


def _sof(marker):
    return b"\xff\xd8\xff" + marker + struct.pack(">HBHHB3B", 11, 16, 65500, 65500, 1, 1, 17, 0)


def large_jpeg(folder):
    _claims(folder, 64, 64, JPEGLosslessSV1, _sof(b"\xc3") + b"\xff\xd9")


def large_jpeg_ls(folder):
    _claims(folder, 64, 64, JPEGLSLossless, _sof(b"\xf7") + b"\xff\xd9")


def huge_native(folder):
    path, data = _slice(folder)
    data.Rows = data.Columns = 65535
    data.save_as(path, enforce_file_format=True)


def many_frames(folder):
    path = folder / "frames"
    scans.enhanced_ct(path, edit=lambda d: setattr(d, "NumberOfFrames", 2_000_000_000))


def endless_element(folder):
    path, _ = _slice(folder)
    _with_element(path, b"OB", 0xFFFFFFF0, b"")


def many_elements(folder):
    path, _ = _slice(folder)
    head, rest = _head(path)
    at = rest.index(b"\x10\x00\x10\x00PN")
    tags = np.zeros((1_000_000, 4), "<u2")
    tags[:, 0], tags[:, 1] = 9 + 2 * (np.arange(1_000_000) // 60_000), np.arange(1_000_000) % 60_000
    tags[:, 2] = struct.unpack("<H", b"LO")[0]
    path.write_bytes(head + rest[:at] + tags.tobytes() + rest[at:])


def many_items(folder):
    path, _ = _slice(folder)
    _with_element(path, b"SQ", 0xFFFFFFFF, ITEM * 1_000_000 + END)


def many_groups(folder):
    path = folder / "groups"
    scans.enhanced_ct(path, scans.smooth((8, 7, 1)))
    data = path.read_bytes()
    at = data.index(b"\x00\x52\x30\x92SQ\0\0")
    (length,) = struct.unpack_from("<I", data, at + 8)
    value = ITEM * 1_000_000
    rest = data[at + 12 + length :]
    path.write_bytes(data[: at + 8] + struct.pack("<I", len(value)) + value + rest)


def deep_sequences(folder):
    path, _ = _slice(folder)
    level = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + PRIVATE + b"SQ\0\0\xff\xff\xff\xff"
    _with_element(path, b"SQ", 0xFFFFFFFF, level * 100_000)


def long_list(folder):
    path, data = _slice(folder)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"  # implicit: lengths of 4 bytes
    del data.PixelSpacing
    dcmwrite(path, data, enforce_file_format=True)
    head, rest = _head(path)
    at = rest.index(b"\x28\x00\x00\x01")  # BitsAllocated comes after PixelSpacing
    value = b"1\\" * 5_000_000
    element = b"\x28\x00\x30\x00" + struct.pack("<I", len(value)) + value
    path.write_bytes(head + rest[:at] + element + rest[at:])


def long_character_set(folder):
    path, data = _slice(folder)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    dcmwrite(path, data, enforce_file_format=True)
    head, rest = _head(path)
    value = b"a\\" * 5_000_000
    element = b"\x08\x00\x05\x00" + struct.pack("<I", len(value)) + value
    path.write_bytes(head + element + rest)


def zip_archive(folder):
    with zipfile.ZipFile(folder / "scan.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("slice", bytes(2**24))


BOMBS = [
    deflated_zeros,
    huge_rle,
    large_jpeg2000,
    tiled_jpeg2000,
    large_jpeg,
    large_jpeg_ls,
    huge_native,
    many_frames,
    endless_element,
    many_elements,
    many_items,
    many_groups,
    deep_sequences,
    long_list,
    long_character_set,
    zip_archive,
]


def _memory(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(what))
    return 1024 * int(line.split()[1])


def measure(folder):
    """Read what is in a folder."""
    from medical.dicom import read
    from medical.refusal import Refusal

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, start, code = _memory("VmRSS"), time.process_time(), None
    try:
        read(folder, single=True)
    except Refusal as refusal:
        code = refusal.code
    seconds, growth = time.process_time() - start, _memory("VmHWM") - before
    return {"code": code, "seconds": seconds, "growth": growth}


def run(folder):
    """Measure every folder in a folder, in a process of its own.

    Returns:
        By name: "code" of the refusal, "seconds" of the processor, "growth" in bytes.
    """
    here = Path(__file__).parent
    command = [sys.executable, __file__, str(folder)]
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


def main(folder):
    """Measure every folder below and print it."""
    from medical.dicom import read  # so that imports are not measured

    assert read
    found = {name: measure(Path(folder, name)) for name in sorted(os.listdir(folder))}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
