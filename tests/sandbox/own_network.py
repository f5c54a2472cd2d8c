"""Makes a fresh network namespace look like a machine's network: loopback, one more address, and a way to everywhere else.

Ray stays on loopback where that is all there is; with a route it announces the machine's address and listens on every interface.
Only system calls, because the programs that do this are not installed everywhere.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

from agents.sandbox import enter

ADDRESS = "10.99.0.1"
SIOCSIFADDR, SIOCADDRT, RTF_UP = 0x8916, 0x890B, 0x1


class Route(ctypes.Structure):
    """struct rtentry of route(7)."""

    _fields_ = [
        ("pad1", ctypes.c_ulong),
        ("destination", ctypes.c_char * 16),
        ("gateway", ctypes.c_char * 16),
        ("mask", ctypes.c_char * 16),
        ("flags", ctypes.c_ushort),
        ("pad2", ctypes.c_short),
        ("pad3", ctypes.c_ulong),
        ("pad4", ctypes.c_void_p),
        ("metric", ctypes.c_short),
        ("device", ctypes.c_char_p),
        ("rest", ctypes.c_ulong * 3),
    ]


def arrange() -> None:
    """Bring the loopback up with `ADDRESS` beside its own, and route everything to it, where it ends."""
    enter.bring_loopback_up()
    everywhere = socket_address("0.0.0.0")  # noqa: S104  # a destination, nobody binds it
    route = Route(destination=everywhere, gateway=everywhere, mask=everywhere, flags=RTF_UP, device=b"lo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s8x", b"lo:1", socket_address(ADDRESS)))
        fcntl.ioctl(control, SIOCADDRT, bytes(route))


def socket_address(address: str) -> bytes:
    """Return struct sockaddr_in of an IPv4 address."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
