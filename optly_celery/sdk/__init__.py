"""What touches the Optimizely SDK: its client, its processor seam, its events as text."""
