"""What systemd wants to hear from a service (sd_notify(3)): datagrams to a socket that it names in the environment.

Anywhere else the socket is not there, and all of this does nothing.
"""

import os
import socket


def notify(*assignments: str) -> bool:
    """Tell systemd, for example `READY=1`; whether there was anybody to tell."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):  # a name in the abstract namespace of Linux
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False  # it does not listen any more; nobody else needs to know
    return True
