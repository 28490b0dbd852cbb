"""App side: an event on its way to the broker."""
