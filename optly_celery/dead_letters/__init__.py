"""Events kept for a person: where they are, what is known about them, and their way back."""
