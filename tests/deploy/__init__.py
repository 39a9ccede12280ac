"""What surrounds the service: image, compose file, chart, proxies before several replicas, alert rules."""
