"""DECNET's side of the table: its class, and the statements of its repository, runner and start-up sweep."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Column, DateTime, Engine, Text, create_engine, delete, select, update
from sqlalchemy.pool import NullPool
from sqlmodel import Field, Session, SQLModel

OPEN = ("pending", "running")


def now() -> datetime:
    return datetime.now(UTC)


class DeckyLifecycle(SQLModel, table=True):
    """Nine columns; times go in aware and are stored naive, in UTC."""

    __tablename__ = "decky_lifecycle"

    id: str = Field(primary_key=True, default_factory=lambda: str(uuid4()))
    decky_name: str = Field(index=True)
    host_uuid: str | None = Field(default=None, index=True)
    operation: str = Field(index=True)
    status: str = Field(default="pending", index=True)
    error: str | None = Field(default=None, sa_column=Column("error", Text, nullable=True))
    started_at: datetime = Field(default_factory=now, sa_type=DateTime)
    updated_at: datetime = Field(default_factory=now, sa_type=DateTime)
    completed_at: datetime | None = Field(default=None, sa_type=DateTime)


TABLE = SQLModel.metadata.tables["decky_lifecycle"]


class Decnet:
    """DECNET's repository. Each start makes what tables are missing, as its own does."""

    def __init__(self, path: Path) -> None:
        self.engine: Engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        with self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        SQLModel.metadata.create_all(self.engine)

    def create(self, **data: Any) -> str:
        with Session(self.engine) as session:
            row = DeckyLifecycle(**data)
            session.add(row)
            session.commit()
            return row.id

    def update(self, lifecycle_id: str, **fields: Any) -> None:
        fields["updated_at"] = now()
        if fields.get("status") in ("succeeded", "failed"):
            fields.setdefault("completed_at", fields["updated_at"])
        with self.engine.begin() as connection:
            connection.execute(update(TABLE).where(TABLE.c.id == lifecycle_id).values(**fields))

    def delete(self, lifecycle_id: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(delete(TABLE).where(TABLE.c.id == lifecycle_id))

    def sweep(self, older_than: datetime, reason: str) -> int:
        ended = {"status": "failed", "error": reason, "updated_at": now(), "completed_at": now()}
        stale = TABLE.c.status.in_(OPEN) & (TABLE.c.started_at < older_than)
        with self.engine.begin() as connection:
            return connection.execute(update(TABLE).where(stale).values(**ended)).rowcount

    def rows(self) -> dict[str, Mapping[str, Any]]:
        with self.engine.connect() as connection:
            found = connection.execute(select(TABLE).order_by(TABLE.c.started_at)).mappings().all()
        return {row["id"]: dict(row) for row in found}
