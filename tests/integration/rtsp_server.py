"""Simulates RTSP cameras with GStreamer's server: /usr/bin/python3 rtsp_server.py VIDEO USER PASSWORD

`/tcp` serves the H.264 video over TCP and UDP, `/udp` over UDP only; both require digest authentication. The
script needs the system's Python, because virtual environments do not contain the GStreamer bindings. It
prints its port and runs until it is terminated.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - versions are chosen first

video, user, password = sys.argv[1:]
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
auth = GstRtspServer.RTSPAuth()
auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
token = GstRtspServer.RTSPToken()
token.set_string("media.factory.role", "user")
auth.add_digest(user, password, token)
server.set_auth(auth)
for path, transports in (
    ("/tcp", GstRtsp.RTSPLowerTrans.TCP | GstRtsp.RTSPLowerTrans.UDP),
    ("/udp", GstRtsp.RTSPLowerTrans.UDP),
):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( filesrc location={video} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
    )
    factory.set_protocols(transports)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)
    server.get_mount_points().add_factory(path, factory)
server.attach(None)
sys.stdout.write(f"{server.get_bound_port()}\n")
sys.stdout.flush()
GLib.MainLoop().run()
