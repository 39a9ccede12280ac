"""Several replicas, and what stands in front of them."""
