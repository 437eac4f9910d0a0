"""Who lives, as the kernel tells: decky locks, owners, and signals of a death."""
