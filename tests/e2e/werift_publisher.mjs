// A WHIP publisher on werift, a WebRTC stack of its own: node werift_publisher.mjs URL CODEC RTP_PORT KEY
// RTP of an encoder comes to RTP_PORT of the loopback interface; "stop" on standard input ends the session.
import { createSocket } from "node:dgram";
import { createInterface } from "node:readline";
import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters } from "werift";

const [url, codec, port, key] = process.argv.slice(2);
const authorization = key ? { Authorization: `Bearer ${key}` } : {};
const h264 = "packetization-mode=1;profile-level-id=42e01f;level-asymmetry-allowed=1";
const pc = new RTCPeerConnection({
  iceServers: [],
  codecs: {
    video: [
      new RTCRtpCodecParameters({
        mimeType: `video/${codec}`,
        clockRate: 90000,
        parameters: codec === "H264" ? h264 : undefined,
        rtcpFeedback: [{ type: "nack" }, { type: "nack", parameter: "pli" }],
      }),
    ],
  },
});
const track = new MediaStreamTrack({ kind: "video" });
pc.addTransceiver(track, { direction: "sendonly" });
createSocket("udp4")
  .on("message", (packet) => track.writeRtp(packet))
  .bind(Number(port), "127.0.0.1");

await pc.setLocalDescription(await pc.createOffer());
const answer = await fetch(url, {
  method: "POST",
  headers: { "Content-Type": "application/sdp", ...authorization },
  body: pc.localDescription.sdp,
});
const body = await answer.text();
const told = { status: answer.status, location: answer.headers.get("Location"), link: answer.headers.get("Link") };
console.log(JSON.stringify(answer.status === 201 ? told : { ...told, body }));
if (answer.status === 201) await pc.setRemoteDescription({ type: "answer", sdp: body });

for await (const line of createInterface({ input: process.stdin })) if (line === "stop") break;
if (told.location) {
  const gone = await fetch(told.location, { method: "DELETE", headers: authorization });
  console.log(JSON.stringify({ deleted: gone.status }));
}
process.exit(0);
