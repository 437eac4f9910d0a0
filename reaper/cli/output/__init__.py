"""How rows are printed: tables, waiting, the progress line."""
