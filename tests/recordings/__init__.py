"""Recorded exchanges with the service, and the test that replays them and finds what has changed."""
