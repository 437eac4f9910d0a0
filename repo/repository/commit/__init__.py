"""Many writes in one commit, and when it is on the disk."""
