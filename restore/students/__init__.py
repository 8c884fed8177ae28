"""Students: networks that jump along a teacher's trajectories, for images in 1 to 4 calls.

    student = students.load("natural-gray-student")
    images = student.draw(16, (1, 32, 32), calls=4, seed=0)

Training rules: `reflow` (straight paths), `consistency` (neighbouring points agree), `trajectories`
(regression on the teacher's own paths, which made the one that ships).
"""

from restore.students.files import available, load, save
from restore.students.student import Student, walk

__all__ = ["Student", "available", "load", "save", "walk"]
