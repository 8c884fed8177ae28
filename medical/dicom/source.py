"""What the DICOM reader keeps of a series, so that a writer can derive another from it."""

from dataclasses import dataclass

from pydicom import Dataset

from medical.volume import Source


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DicomSource(Source):
    """The headers of a series, without pixels.

    Attributes:
        headers: single images: one dataset a measured slice, in slice order (growing k).
            Multi-frame: one dataset a file. Each has its `file_meta`, none has pixel data.
        frames: for each slice k of the volume, `(index into headers, frame number from 0)`, or
            None where no slice was measured (a filled gap). Empty when the volume was resampled,
            so that no slice of it is a slice of the files.
        multiframe: whether the headers are of multi-frame files.
        series: alias of the SeriesInstanceUID, safe to print.
    """

    headers: tuple[Dataset, ...]
    frames: tuple[tuple[int, int] | None, ...]
    multiframe: bool
    series: str

    @property
    def resampled(self) -> bool:
        """Whether the volume's grid is not that of the files."""
        return not self.frames

    def header(self, k: int) -> Dataset | None:
        """Dataset of the file that slice k came from, None where none was measured.

        Raises:
            ValueError: the volume was resampled.
        """
        if self.resampled:
            raise ValueError(
                "the volume was resampled when it was read, its slices are not those of the files; "
                "read it without resampling."
            )
        place = self.frames[k]
        return None if place is None else self.headers[place[0]]

    def __repr__(self) -> str:
        """Counts and alias, nothing that identifies a patient."""
        kind = "multi-frame file" if self.multiframe else "image"
        plural = "s" if len(self.headers) != 1 else ""
        return f"<DicomSource {self.series}, {len(self.headers)} {kind}{plural}>"
