"""Which schema this code writes, and where a store says which it has."""

from typing import Final

HEAD: Final = "0001"
"""The revision that this code writes; a store that says so needs no migration, and no Alembic."""

VERSION_TABLE: Final = "decnet_reaper_version"
"""Not Alembic's usual name: DECNET keeps that one, for its own schema, in the same file."""
