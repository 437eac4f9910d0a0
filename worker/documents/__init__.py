"""Compose documents: read, checked, their secrets masked."""
