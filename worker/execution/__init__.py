"""Executes one row: its turn on the decky, the claim, the operation, the end."""
