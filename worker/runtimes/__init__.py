"""What brings deckies up: Docker Compose, or local processes."""
