"""Worker side: an event on its way from the broker to Optimizely."""
