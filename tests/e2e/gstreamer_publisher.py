"""Publishes a video over WHIP with GStreamer: /usr/bin/python3 gstreamer_publisher.py URL VIDEO CODEC

Runs in the system's Python, because virtual environments lack GStreamer's bindings. Prints each answer of the
server as one line of JSON. The line "stop" on standard input, or the end of the input, ends the session.
"""

import json
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402 - versions are chosen first

url, video, codec = sys.argv[1:]
ENCODERS = {
    "VP8": "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=30 target-bitrate=1000000 ! rtpvp8pay pt=96",
    "H264": "openh264enc bitrate=1000000 gop-size=30 complexity=low ! h264parse ! "
    "rtph264pay pt=96 config-interval=-1 aggregate-mode=zero-latency",
}
encoding = "VP8" if codec == "VP8" else "H264"
Gst.init(None)
pipeline = Gst.parse_launch(
    f"webrtcbin name=peer filesrc location={video} ! decodebin ! videoconvert ! videoscale ! "
    f"video/x-raw,width=640,height=360 ! {ENCODERS[codec]} ! "
    f"application/x-rtp,media=video,encoding-name={encoding},payload=96 ! queue ! identity sync=true ! peer."
)
peer = pipeline.get_by_name("peer")
loop = GLib.MainLoop()
location = [""]


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def request(method: str, address: str, body: bytes | None = None) -> Any:
    headers = {"Content-Type": "application/sdp"}
    made = urllib.request.Request(address, body, headers, method=method)  # noqa: S310 - loopback
    try:
        return urllib.request.urlopen(made, timeout=60)  # noqa: S310 - loopback
    except urllib.error.HTTPError as error:
        return error


def publish() -> None:
    sdp = peer.get_property("local-description").sdp.as_text()
    answer = request("POST", url, sdp.encode())
    text = answer.read()
    location[0] = answer.headers.get("Location", "")
    say(status=answer.status, location=location[0], body="" if answer.status == 201 else text.decode())
    if answer.status != 201:
        return
    _, message = GstSdp.SDPMessage.new()
    GstSdp.sdp_message_parse_buffer(text, message)
    description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
    peer.emit("set-remote-description", description, Gst.Promise.new())


def gathered(*_: object) -> None:
    if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
        threading.Thread(target=publish, daemon=True).start()


def offer_made(promise: Gst.Promise) -> None:
    promise.wait()
    # Keep the reply in a variable: it owns the memory of the offer.
    reply = promise.get_reply()
    offer = reply.get_value("offer")
    peer.emit("set-local-description", offer, Gst.Promise.new())


def begin() -> bool:
    pads = peer.sinkpads
    if not pads or pads[0].get_current_caps() is None:
        return True  # an offer made now would have no media
    peer.emit("create-offer", None, Gst.Promise.new_with_change_func(offer_made))
    return False


def listen() -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            break
    if location[0]:
        say(deleted=request("DELETE", location[0]).status)
    loop.quit()


peer.connect("notify::ice-gathering-state", gathered)
pipeline.set_state(Gst.State.PLAYING)
GLib.timeout_add(200, begin)
threading.Thread(target=listen, daemon=True).start()
loop.run()
pipeline.set_state(Gst.State.NULL)
