"""The repository: each call is one write handed to the group commit, or one read. Knows no database."""

from repo.repository.writes import SqlRepository

__all__ = ["SqlRepository"]
