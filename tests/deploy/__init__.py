"""What puts the service somewhere: image, compose file, chart, rules, workflows, several replicas."""
