"""What a worker does while an endpoint is away: it stops receiving, probes, and comes back."""
