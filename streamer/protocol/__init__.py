"""The protocol `detect.v1`: binary frames, messages of client and server, close codes. No sockets."""
