"""Receipt from Redis: nothing is lost between the queue and the worker's hands."""
