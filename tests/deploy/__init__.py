"""What surrounds the service: image, compose file, chart, several replicas behind a proxy, alert rules, workflows."""
