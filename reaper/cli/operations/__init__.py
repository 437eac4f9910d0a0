"""Commands that change deckies."""
