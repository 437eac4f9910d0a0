"""The command line: `decnet-reaper`."""
