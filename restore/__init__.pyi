from .result import Cost as Cost
from .result import Result as Result
from .run import solve as solve
from .solver import Solver as Solver
from .solver import Step as Step

__version__: str
