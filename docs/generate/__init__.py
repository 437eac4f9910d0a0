"""Writes what documentation takes from the code: the reference and the man pages."""
