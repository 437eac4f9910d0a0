"""The store in an SQLite file: connections, checkpoints, and what its errors mean."""
