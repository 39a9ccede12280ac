"""Handles images sent by POST: body, parameters, answers. Live streams belong to `streamer.streams`."""
