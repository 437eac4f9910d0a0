"""The operations by name, one entry each."""

from typing import Final

from worker.operations.base import DeckyOperation
from worker.operations.deploy import Deploy
from worker.operations.mutate import Mutate
from worker.operations.teardown import Teardown

OPERATIONS: Final[dict[str, DeckyOperation]] = {
    "deploy": Deploy(),
    "mutate": Mutate(),
    "teardown": Teardown(),
}
"""As a row's `operation` names them; the store's own list is `repo.lifecycle.OPERATIONS`."""
