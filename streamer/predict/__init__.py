"""Image requests by POST: body, parameters, answers. Live streams belong to `streamer.streams`."""
