"""Simulates RTSP cameras with GStreamer's server: /usr/bin/python3 rtsp_server.py VIDEO USER PASSWORD FRAMES

`/tcp` serves the H.264 video over TCP and UDP, `/udp` over UDP only. `/step` serves one frame of the file
FRAMES for each line on standard input; in the file, each frame follows its length in four bytes. All require
digest authentication. The script needs the system's Python, because virtual environments do not contain the
GStreamer bindings. It prints its port and runs until it is terminated.
"""

import sys
import threading
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - versions are chosen first

video, user, password, frames = sys.argv[1:]
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


def add(path: str, launch: str, transports: GstRtsp.RTSPLowerTrans) -> GstRtspServer.RTSPMediaFactory:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {launch} ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )")
    factory.set_protocols(transports)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)
    server.get_mount_points().add_factory(path, factory)
    return factory


def send_frames(source: Gst.Element) -> None:
    data = Path(frames).read_bytes()
    while data and sys.stdin.readline():
        length = int.from_bytes(data[:4], "big")
        source.emit("push-buffer", Gst.Buffer.new_wrapped(data[4 : 4 + length]))
        data = data[4 + length :]
    source.emit("end-of-stream")


def configured(_factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
    source = media.get_element().get_by_name_recurse_up("source")
    threading.Thread(target=send_frames, args=(source,), daemon=True).start()


both = GstRtsp.RTSPLowerTrans.TCP | GstRtsp.RTSPLowerTrans.UDP
add("/tcp", f"filesrc location={video} ! qtdemux", both)
add("/udp", f"filesrc location={video} ! qtdemux", GstRtsp.RTSPLowerTrans.UDP)
caps = "video/x-h264,stream-format=byte-stream,alignment=au"
step = add("/step", f"appsrc name=source is-live=true do-timestamp=true format=time caps={caps}", both)
step.connect("media-configure", configured)
server.attach(None)
sys.stdout.write(f"{server.get_bound_port()}\n")
sys.stdout.flush()
GLib.MainLoop().run()
