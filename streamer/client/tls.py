"""How the server's certificate is checked."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from streamer.client.errors import BadInput


@dataclass(frozen=True, slots=True)
class Tls:
    """How to check the server's certificate."""

    #: PEM file of the authority to trust in place of the system's.
    ca_file: str | None = None
    #: Whether any certificate will do.
    insecure: bool = False

    def context(self) -> ssl.SSLContext | bool:
        """Return what aiohttp takes as ``ssl``. Raises BadInput when the file cannot be used."""
        if self.insecure:
            return False
        if self.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise BadInput(f"certificate file {self.ca_file}: {error}") from error
