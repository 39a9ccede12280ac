"""The service in front of the inference process: HTTP, WebSocket, media, sessions, the command line."""
