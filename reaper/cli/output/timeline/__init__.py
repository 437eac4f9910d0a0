"""What the fleet did, as a picture."""
