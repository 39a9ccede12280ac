"""Shared by all HTTP routes: identification of clients, access control, hosts and origins, byte limits."""
