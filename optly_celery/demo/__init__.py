"""The pipeline on one machine: shop, broker, worker and collector, and a guided tour."""
