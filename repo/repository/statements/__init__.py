"""Every statement that the repository runs, written once from the models."""
