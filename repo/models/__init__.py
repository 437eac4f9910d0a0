"""What a row is: its tables, and what a caller may say about it."""
