from .outcome import Restored as Restored
from .quality import Quality as Quality
from .settings import Settings as Settings
from .tasks import tasks as tasks
from .work import reconstruct as reconstruct

__all__ = ["Quality", "Restored", "Settings", "reconstruct", "tasks"]
