"""Programs to start from: a notebook, and a forwarder to MQTT and webhooks."""
