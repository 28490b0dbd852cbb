"""What makes a worker faster or calmer; it may be deleted, and no promise is broken by that."""
