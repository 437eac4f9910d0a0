"""What can be done to a decky, one file an operation."""
