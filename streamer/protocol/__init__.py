"""The protocol `detect.v1`: binary frames, control messages, close codes. No sockets."""
