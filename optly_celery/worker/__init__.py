"""Worker side: from the queue into a worker's hands, and back when it must not be lost."""
