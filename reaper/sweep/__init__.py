"""The sweep: what is known about each open row, what the rules say, and doing it."""
