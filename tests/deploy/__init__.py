"""What surrounds the service: image, compose file, alert rules, dashboard, workflows."""
