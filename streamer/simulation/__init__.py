"""Pure models of the service and its autoscaling, with a clock of their own, and how they show results."""
