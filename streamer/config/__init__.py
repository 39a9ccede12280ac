"""Reads and checks the settings of the service. What a setting means is decided where it is used."""
