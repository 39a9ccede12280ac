"""Offers are accepted or refused with a clear text, and the stack sees only candidates that were checked."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.webrtc.candidate import MAX_CANDIDATES, BadCandidate, usable
from streamer.webrtc.sdp_offer import MAX_SDP_BYTES, MAX_SECTION_BYTES, BadOffer, Offer, check_offer

FINGERPRINT = ":".join(["AB"] * 32)
COMMON = f"""\
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuv
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
"""
HEAD = "v=0\no=- 1 2 IN IP4 127.0.0.1\ns=-\nt=0 0\n"
VIDEO = f"""\
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=mid:0
a=sendonly
a=rtcp-mux
{COMMON}\
a=rtpmap:96 VP8/90000
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""
AUDIO = f"""\
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:1
a=sendonly
a=rtcp-mux
{COMMON}\
a=rtpmap:111 opus/48000/2
"""
CHANNELS = f"""\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
a=mid:2
{COMMON}\
a=sctp-port:5000
"""
PUBLIC = "1 1 udp 2130706431 8.8.8.8 40000 typ host"


def check(text: str, *, allow_private: bool = False) -> Offer:
    return check_offer(text.replace("\n", "\r\n"), allow_private=allow_private)


def refusal(text: str) -> BadOffer:
    with pytest.raises(BadOffer) as caught:
        check(text)
    return caught.value


def test_a_plain_offer_passes() -> None:
    offer = check(HEAD + VIDEO)
    assert (offer.wants_video, offer.peer_is_dtls_server) == (False, False)
    assert "a=group:BUNDLE 0\r\n" in offer.sdp


def test_bundled_sections_are_named_in_their_order() -> None:
    offer = check(HEAD + "a=group:BUNDLE 2 0 1\n" + VIDEO + AUDIO + CHANNELS)
    assert "a=group:BUNDLE 0 1 2\r\n" in offer.sdp
    assert offer.sdp.count("BUNDLE") == 1


def test_candidates_are_taken_out_and_judged() -> None:
    lines = [PUBLIC, "2 1 udp 1 192.168.1.2 40000 typ host", "3 1 udp 1 x.local 40000 typ host"]
    text = HEAD + VIDEO + "".join(f"a=candidate:{line}\n" for line in lines) + "a=end-of-candidates\n"
    offer = check(text)
    assert (offer.candidates, offer.candidates_left_out) == ((PUBLIC,), 2)
    assert "candidate" not in offer.sdp
    assert len(check(text, allow_private=True).candidates) == 2


def test_a_hundred_candidates_make_sixteen() -> None:
    lines = "".join(f"a=candidate:{n} 1 udp 1 8.8.8.8 {40000 + n} typ host\n" for n in range(100))
    offer = check(HEAD + VIDEO + lines)
    assert (len(offer.candidates), offer.candidates_left_out) == (MAX_CANDIDATES, 100 - MAX_CANDIDATES)


@pytest.mark.parametrize("profile", ["42e01f", "42001f", "4d001f", "4d0032", "640c1f", "640028", "64001F"])
@pytest.mark.parametrize("mode", ["0", "1"])
def test_h264_of_these_profiles_is_taken_as_offered(profile: str, mode: str) -> None:
    parameters = f"packetization-mode={mode};profile-level-id={profile};level-asymmetry-allowed=1"
    text = VIDEO.replace("VP8/90000", f"H264/90000\na=fmtp:96 {parameters}")
    offer = check(HEAD + text)
    assert offer.formats[96]["profile-level-id"] == profile
    assert offer.formats[96]["packetization-mode"] == mode


@pytest.mark.parametrize("codec", ["VP9", "AV1", "H265"])
def test_an_offer_of_another_codec_alone_is_told_what_is_taken(codec: str) -> None:
    error = refusal(HEAD + VIDEO.replace("VP8", codec))
    assert (error.status, error.code) == (422, "unsupported_codec")
    assert f"The offer has {codec}; taken are VP8, H.264" in str(error)


def test_h264_with_other_colours_alone_is_refused() -> None:
    text = VIDEO.replace("VP8/90000", "H264/90000\na=fmtp:96 packetization-mode=1;profile-level-id=f4001f")
    assert refusal(HEAD + text).code == "unsupported_codec"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", 400, "begins with ''"),
        ("hello", 400, "'v=0'"),
        (HEAD, 422, "no video section"),
        (HEAD + AUDIO, 422, "no video section"),
        (HEAD + VIDEO + "nonsense\n", 400, "lines are 'x=value'"),
        (HEAD + VIDEO.replace("m=video 9", "m=video nine"), 400, "m=kind port"),
        (HEAD + VIDEO + VIDEO.replace("mid:0", "mid:1"), 422, "2 video sections; one of each kind"),
        (HEAD + VIDEO.replace("m=video", "m=text"), 422, "'text'; allowed are video, audio, application"),
        (HEAD + VIDEO + AUDIO, 422, "BUNDLE"),
        (HEAD + "a=group:BUNDLE 0\n" + VIDEO + AUDIO, 422, "BUNDLE"),
        (HEAD + VIDEO.replace("sendonly", "recvonly"), 422, "recvonly and sends nothing"),
        (HEAD + VIDEO.replace("m=video 9", "m=video 0"), 422, "sends nothing"),
        (HEAD + VIDEO.replace("a=fingerprint", "a=nothing"), 400, "a=fingerprint for the video section"),
        (HEAD + VIDEO.replace("sha-256", "sha-1"), 400, "sha-256, sha-384 or sha-512"),
        (HEAD + VIDEO.replace("a=ice-ufrag:abcd", "a=ice-ufrag:a b"), 400, "a=ice-ufrag"),
        (HEAD + VIDEO.replace("abcdefghijklmnopqrstuv", "short"), 400, "a=ice-pwd"),
        (HEAD + VIDEO.replace("a=rtcp-mux\n", ""), 422, "a=rtcp-mux"),
        (HEAD + VIDEO.replace("a=mid:0\n", ""), 400, "a=mid"),
        (HEAD + VIDEO + "a=candidate:nonsense\n", 400, "A candidate is malformed"),
        (HEAD + VIDEO + "a=x:" + "y" * MAX_SDP_BYTES + "\n", 413, str(MAX_SDP_BYTES)),
        (HEAD + "a=x\n" * 2500 + VIDEO, 413, "2000"),
        (HEAD + VIDEO + "a=fmtp:96 " + "a=1;" * 6000 + "\n", 413, str(MAX_SECTION_BYTES)),
        (HEAD + "a=group:BUNDLE 0 1\n" + VIDEO + AUDIO.replace("opus", "flac"), 422, "opus, G722"),
    ],
)
def test_a_wrong_offer_is_refused_with_what_is_wrong(text: str, status: int, words: str) -> None:
    error = refusal(text)
    assert error.status == status
    assert words in str(error)


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_no_mutation_of_an_offer_does_any_other_harm(seed: int, changes: int) -> None:
    drawn = random.Random(seed)
    text = HEAD + "a=group:BUNDLE 0 1 2\n" + VIDEO + AUDIO + CHANNELS + f"a=candidate:{PUBLIC}\n"
    for _ in range(changes):
        at = drawn.randrange(len(text))
        cut = text[at : at + drawn.randrange(30)]
        text = (
            text[:at]
            + drawn.choice(["", cut * 2, "\n", "a=", "\x00", "é", "m=video 9 x 96\n"])
            + text[at + 1 :]
        )
    try:
        offer = check_offer(text, allow_private=False)
    except BadOffer as error:
        assert error.status in (400, 413, 422)
        return
    assert "a=candidate:" not in offer.sdp


@pytest.mark.parametrize(
    ("address", "good", "good_if_private"),
    [
        ("8.8.8.8", True, True),
        ("2001:4860::1", True, True),
        ("192.168.1.2", False, True),
        ("10.0.0.1", False, True),
        ("fd00::2", False, True),
        ("100.64.0.1", False, True),
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("::ffff:127.0.0.1", False, False),
        ("::ffff:10.0.0.1", False, True),
        ("169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("224.0.0.251", False, False),
        ("255.255.255.255", False, False),
        ("0.1.2.3", False, False),
        ("c1f0-4.local", False, False),
        ("example.org", False, False),
        ("2606:4700:4700::1111", True, True),
        ("2a00:1450:4001:80b::200e", True, True),
        ("172.31.255.255", False, True),
        ("172.32.0.1", True, True),
        ("0.0.0.0", False, False),  # noqa: S104 - never bound to
        ("192.0.0.8", False, False),
        ("192.0.2.1", False, False),
        ("198.51.100.9", False, False),
        ("203.0.113.9", False, False),
        ("198.18.0.1", False, False),
        ("198.19.255.255", False, False),
        ("192.88.99.1", False, False),
        ("240.0.0.1", False, False),
        ("239.255.255.250", False, False),
        ("100.100.100.200", False, False),
        ("fd00:ec2::254", False, False),
        ("::", False, False),
        ("::10.0.0.1", False, False),
        ("::8.8.8.8", False, False),
        ("::ffff:0:8.8.8.8", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::10.0.0.1", False, False),
        ("64:ff9b::808:808", False, False),
        ("64:ff9b:1::10.0.0.1", False, False),
        ("2002:a00:1::1", False, False),
        ("2002:808:808::1", False, False),
        ("2001:0:808:808::1", False, False),
        ("2001:2::1", False, False),
        ("2001:10::1", False, False),
        ("2001:20::1", False, False),
        ("2001:db8::1", False, False),
        ("3fff::1", False, False),
        ("100::1", False, False),
        ("5f00::1", False, False),
        ("fec0::1", False, False),
        ("fe80::1%eth0", False, False),
        ("2a00::1%eth0", False, False),
        ("ff02::fb", False, False),
        ("ff0e::1", False, False),
        ("2a00::5efe:a00:1", False, False),
        ("2a00::200:5efe:808:808", False, False),
        ("4000::1", False, False),
    ],
)
def test_which_addresses_are_sent_to(address: str, good: bool, good_if_private: bool) -> None:
    candidate = f"1 1 udp 2130706431 {address} 40000 typ host generation 0"
    assert usable(candidate, allow_private=False) is good
    assert usable(candidate, allow_private=True) is good_if_private


def test_no_line_but_a_judged_candidate_hands_an_address_to_the_stack() -> None:
    line = "1 1 udp 1 8.8.8.8 40000 typ relay raddr 10.0.0.9 rport 5000 generation 0"
    text = HEAD + VIDEO + f"a=candidate:{line}\na=rtcp:9 IN IP4 10.0.0.9\n"
    offer = check(text.replace("a=mid:0", "c=IN IP4 10.0.0.9\na=mid:0"))
    assert offer.candidates == ("1 1 udp 1 8.8.8.8 40000 typ relay generation 0",)
    assert "10.0.0.9" not in offer.sdp


@pytest.mark.parametrize(
    "candidate",
    [
        PUBLIC.replace("1 1 udp", "1 2 udp"),
        PUBLIC.replace("udp", "tcp"),
        PUBLIC.replace("40000", "53"),
        PUBLIC.replace("40000", "70000"),
        PUBLIC.replace("typ host", "typ prflx"),
    ],
)
def test_which_candidates_are_not_used_whatever_their_address(candidate: str) -> None:
    assert not usable(candidate, allow_private=True)


@pytest.mark.parametrize(
    "candidate",
    [
        "",
        "1 1 udp",
        PUBLIC + "\r\na=x",
        PUBLIC.replace("typ host", "typ x"),
        PUBLIC + " rport x",
        PUBLIC + " raddr",
    ],
)
def test_what_is_no_candidate_is_said(candidate: str) -> None:
    with pytest.raises(BadCandidate):
        usable(candidate, allow_private=False)
