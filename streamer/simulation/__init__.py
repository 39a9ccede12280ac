"""Models of the service and of its autoscaling, with a clock of their own, and how they show results."""
