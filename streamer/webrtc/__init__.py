"""Video over WebRTC and WHIP: its frames meet POSTs and WebSocket frames in one dispatcher."""
