"""How a row is accepted: under an id that is greater than all that were accepted before."""

from typing import Any

from repo.engine import Step, Transaction
from repo.errors import LifecycleExists
from repo.models.statement import Statement
from repo.repository import ids
from repo.repository.prepared import reads
from repo.repository.steps import busy, decky_key, follow_newest, must


class Acceptance:
    """A row that is being accepted. Its id is made as late as can be, so that ids follow that order.

    Attributes:
        given: the id that the caller wants it to have, or "".
        id: the one that it got.
    """

    def __init__(self, row: dict[str, Any], statement: Statement) -> None:
        self._row = row
        self._statement = statement
        self.given: str = row["id"] or ""
        self.id = self.given
        self._taken = False
        self._ahead = 0

    def steps(self) -> list[Step]:
        """Insert it, if its id is the newest or was given."""
        self.id = self.id or ids.new_id()
        horizon = "" if self.given else ids.horizon()
        return [Step(self._statement, self._row | {"id": self.id, "horizon": horizon})]

    async def try_again(self, transaction: Transaction) -> None:
        """Say why it was refused, or give it an id behind one that came from a clock ahead of ours.

        Raises:
            LifecycleExists, DeckyBusy.
        """
        if (self.given or transaction.repeats) and await transaction.first(reads.STATE, {"row_id": self.id}):
            if transaction.repeats and not self._taken:
                return
            self._taken = True  # and not by this call, whatever becomes of the transaction
            raise LifecycleExists(f"lifecycle {self.given}: this id is taken")
        name, host_uuid = self._row["decky_name"], self._row["host_uuid"]
        if self._row["status"] == "running" and await transaction.first(
            reads.FIND_RUNNING, decky_key(name, host_uuid)
        ):
            raise busy(self.id, name)
        await follow_newest(transaction, self._ahead)
        self._ahead = self._ahead * 2 or 1  # beside other writers: a newer one came in between
        self.id = self.given or ids.new_id()
        await must(transaction, self.steps())
