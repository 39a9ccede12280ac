"""The demo page: plain ES modules, served from memory by `streamer.server.pages`."""
