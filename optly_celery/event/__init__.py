"""One event of the SDK, and events that are merged into one or split again."""
