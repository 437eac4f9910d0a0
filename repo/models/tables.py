"""The tables: what each column is called, means, and may hold. The only definition of them.

A registry of their own keeps these models apart from DECNET's, which has a class for `decky_lifecycle` too.
Constraints, indexes and triggers: migrations/versions, and `guards` beside each engine.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from pydantic import StringConstraints
from sqlalchemy import DateTime, Dialect, Integer, String, Text
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType
from sqlmodel import Field, SQLModel

from repo.base import DECKY_NAME, ID, Operation, Outcome, Status

Id = Annotated[str, StringConstraints(pattern=ID.pattern)]
DeckyName = Annotated[str, StringConstraints(pattern=DECKY_NAME.pattern)]


class _Datetime(UserDefinedType[Any]):
    """Text under the name that DECNET gives it."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "DATETIME"


class UtcTime(TypeDecorator[str]):
    """In goes text as `repo.models.times` writes it, out comes ISO 8601 text, since rows are JSON-ready."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`timestamptz`, or the text that SQLite has in its place."""
        return DateTime(timezone=True) if dialect.name == "postgresql" else _Datetime()


class Json(TypeDecorator[Any]):
    """In goes JSON text (see `validation.to_json`), out comes the value."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`jsonb`, or the text that SQLite has in its place."""
        if dialect.name != "postgresql":
            return Text()
        from sqlalchemy.dialects.postgresql import JSONB  # takes 0.03 s, which SQLite needn't wait for

        return JSONB()


class Base(SQLModel, registry=registry()):
    """What our models have in common: their registry, and so their metadata."""


class DeckyLifecycle(Base, table=True):
    """One row for each attempt of one operation on one decky."""

    __tablename__: ClassVar[Any] = "decky_lifecycle"

    id: Id = Field(
        primary_key=True,
        sa_type=String(64),
        description="a UUID version 7, so that ids sort by acceptance; a given one is kept",
    )
    decky_name: DeckyName = Field(
        sa_type=String(128), description="the decoy machine, `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`"
    )
    host_uuid: Id | None = Field(
        default=None,
        sa_type=String(64),
        description="the host that the decky lives on; null for the master's own",
    )
    operation: Operation = Field(sa_type=String(16), description="`deploy`, `mutate` or `teardown`")
    status: Status = Field(
        default="pending", sa_type=String(16), description="`pending`, `running`, `succeeded` or `failed`"
    )
    outcome: Outcome | None = Field(
        default=None,
        sa_type=String(16),
        description="how it ended: `succeeded`, `failed`, `timed_out`, `cancelled`, `interrupted`, `swept`,"
        " `expired` or `lost`; null on open rows and on those that DECNET itself ended",
    )
    error: str | None = Field(
        default=None,
        sa_type=Text,
        description="why it failed, at most 2,000 characters; only on failed rows",
    )
    started_at: datetime = Field(sa_type=UtcTime, description="when the attempt was accepted")
    updated_at: datetime = Field(sa_type=UtcTime, description="the last change")
    completed_at: datetime | None = Field(
        default=None, sa_type=UtcTime, description="the end; set exactly on terminal rows"
    )
    payload: dict[str, Any] | None = Field(
        default=None,
        sa_type=Json,
        description="the request, a JSON object: `compose`, `services`; may hold secrets",
    )
    owner: str | None = Field(
        default=None, sa_type=String(255), description="one life of one worker: host/boot/pid/start/random"
    )
    claimed_at: datetime | None = Field(
        default=None, sa_type=UtcTime, description="when its worker claimed it"
    )
    attempt: Annotated[int, Ge(1)] = Field(
        default=1, sa_type=Integer, description="1, and one more for each retry that was made by itself"
    )
    retry_of: Id | None = Field(default=None, sa_type=String(64), description="the row that this one repeats")
    retry_id: str | None = Field(
        default=None, sa_type=String(64), description="the row that repeats this one by itself"
    )
    deliveries: Annotated[int, Ge(0)] = Field(
        default=0, sa_type=Integer, description="how often it was enqueued"
    )
    enqueued_at: datetime | None = Field(
        default=None, sa_type=UtcTime, description="when it was last enqueued"
    )
    cancel_requested_at: datetime | None = Field(
        default=None, sa_type=UtcTime, description="when an operator asked a running operation to end"
    )


class DeckyDeployed(Base, table=True):
    """What each decky runs since its last success."""

    __tablename__: ClassVar[Any] = "decky_deployed"

    decky_name: str = Field(primary_key=True, sa_type=String(128), description="the decoy machine")
    host: str = Field(
        primary_key=True,
        sa_type=String(64),
        description="its host; empty for the master's own, since a key can't be null",
    )
    document: dict[str, Any] = Field(sa_type=Json, description="its whole Compose document")
    services: list[str] = Field(sa_type=Json, description="those that are switched on")
    lifecycle_id: str = Field(sa_type=String(64), description="the row that brought it there")
    updated_at: datetime = Field(sa_type=UtcTime, description="when")


class Store(Base, table=True):
    """Which store this is: one row."""

    __tablename__: ClassVar[Any] = "decnet_reaper_store"

    id: str = Field(
        primary_key=True,
        sa_type=String(64),
        description="random, and made with the store; a queue carries it",
    )


metadata = Base.metadata
lifecycle = metadata.tables["decky_lifecycle"]
deployed = metadata.tables["decky_deployed"]
store = metadata.tables["decnet_reaper_store"]
