"""Commands that install, check and mend."""
