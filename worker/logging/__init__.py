"""The log: the catalogue of events, and how they are printed."""
