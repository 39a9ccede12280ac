"""The worker process: composes the application, serves health, metrics and pages."""
