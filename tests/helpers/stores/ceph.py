"""Runs a real S3 store on loopback: Ceph's gateway over an in-memory store. It starts in about two seconds.

It needs the Debian packages radosgw, ceph-mon, ceph-osd and ceph-common, and root. Two pitfalls: cephx must
be on, otherwise the gateway waits forever; without short Paxos intervals it takes 12 s until the user exists.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from types import TracebackType

from tests.helpers.ports import free_ports

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool")
PACKAGES = "radosgw ceph-mon ceph-osd ceph-common"
ACCESS_KEY, SECRET_KEY = "dummy-access-key", "dummy-secret-key"
#: Longest wait for one step of the start, which takes a fraction of a second on an idle machine.
START_LIMIT_S = 120.0

_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
crash dir = {folder}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
mon data avail crit = 1
mon data = {folder}/mon
osd data = {folder}/osd
paxos propose interval = 0.02
paxos min wait = 0.01
[osd]
osd objectstore = memstore
memstore device bytes = 1G
keyring = {folder}/osd.keyring
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


def missing() -> list[str]:
    """Return the missing programs, or ``root`` if only root rights are missing; empty if nothing is."""
    found = [name for name in PROGRAMS if shutil.which(name) is None]
    return found or ([] if os.geteuid() == 0 else ["root"])


class Ceph:
    """Runs the store within ``with``; ``stop_gateway`` and ``start_gateway`` simulate an outage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, *self._monitor_ports = free_ports(3)
        self._daemons: list[subprocess.Popen[bytes]] = []
        #: The last gateway that was started, even if it was stopped since; None before the first start.
        self.gateway: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of the gateway."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Ceph:
        try:
            self._start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def stop_gateway(self) -> None:
        """Kill the gateway, so that connections are refused from now on."""
        assert self.gateway is not None
        self.gateway.kill()
        self.gateway.wait()

    def freeze_gateway(self) -> None:
        """Suspend the gateway until :meth:`thaw_gateway`; connections succeed, but get no answer."""
        assert self.gateway is not None
        self.gateway.send_signal(signal.SIGSTOP)

    def thaw_gateway(self) -> None:
        """Resume the gateway."""
        assert self.gateway is not None
        self.gateway.send_signal(signal.SIGCONT)

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers."""
        self.gateway = self._daemon("radosgw", "-n", "client.rgw", "-f")
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(self.url, timeout=2):  # noqa: S310 - loopback
                    return
            except urllib.error.HTTPError as answer:
                answer.close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("radosgw does not answer")

    # -- start ---------------------------------------------------------------------------------------

    def _start(self) -> None:
        folder, fsid, osd_id = self._folder, str(uuid.uuid4()), str(uuid.uuid4())
        for name in ("mon", "osd"):
            (folder / name).mkdir(parents=True)
        mon1, mon2 = self._monitor_ports
        (folder / "ceph.conf").write_text(
            _CONFIGURATION.format(fsid=fsid, folder=folder, mon1=mon1, mon2=mon2, port=self._port)
        )
        keyring = str(folder / "keyring")
        for name, caps in (
            ("mon.", ["mon", "allow *"]),
            ("client.admin", ["mon", "allow *", "osd", "allow *", "mgr", "allow *"]),
            ("client.rgw", ["mon", "allow rwx", "osd", "allow rwx"]),
        ):
            pairs = [
                word for kind, cap in zip(caps[::2], caps[1::2], strict=True) for word in ("--cap", kind, cap)
            ]
            made = [] if (folder / "keyring").exists() else ["--create-keyring"]
            self._run("ceph-authtool", keyring, *made, "--gen-key", "-n", name, *pairs, configured=False)
        addresses = f"[v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]"
        monmap = str(folder / "monmap")
        self._run(
            "monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monmap, configured=False
        )
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._daemon("ceph-mon", "-i", "a", "-f")
        self._run("ceph", "osd", "new", osd_id)
        caps = ["mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"]
        self._run("ceph", "auth", "get-or-create", "osd.0", *caps, "-o", str(folder / "osd.keyring"))
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id)
        self._daemon("ceph-osd", "-i", "0", "-f")
        deadline = time.monotonic() + START_LIMIT_S
        while "1 up" not in self._run("ceph", "osd", "stat"):
            assert time.monotonic() < deadline, "the OSD does not come up"
            time.sleep(0.1)
        user = ["--uid=t", "--display-name=t", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        self._run("radosgw-admin", "user", "create", *user)
        self.start_gateway()

    def _run(self, program: str, *arguments: str, configured: bool = True) -> str:
        where = ["-c", str(self._folder / "ceph.conf")] if configured else []
        done = subprocess.run(
            [program, *where, *arguments], capture_output=True, text=True, timeout=START_LIMIT_S, check=False
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr[-500:]}"
        return done.stdout + done.stderr

    def _daemon(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        daemon = subprocess.Popen(
            [
                program,
                "-c",
                str(self._folder / "ceph.conf"),
                *arguments,
                "--setuser",
                "root",
                "--setgroup",
                "root",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._daemons.append(daemon)
        return daemon

    def _kill(self) -> None:
        # Use SIGKILL: after SIGTERM, the OSD takes seconds to end without its monitor. It has nothing to
        # save, because all data is in memory.
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()
