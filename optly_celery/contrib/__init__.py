"""Web frameworks, each in a module that imports it; nothing else of this package does."""
