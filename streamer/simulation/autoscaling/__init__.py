"""Days of an autoscaled release: demand for streams, replicas, Prometheus, and Kubernetes' autoscaler."""
