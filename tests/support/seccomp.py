"""System calls of a program handed over to another process, which decides what becomes of each (seccomp_unotify(2)).

This file is also run, by path, with the standard library only: it becomes the program. Linux on x86_64.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

Instruction = tuple[int, int, int, int]
"""Of classic BPF: code, jump if true, jump if false, value (linux/filter.h)."""

LOAD, EQUAL, ANY_BIT, _ANSWER = 0x20, 0x15, 0x45, 0x06
NOTIFY: Instruction = (_ANSWER, 0, 0, 0x7FC00000)
ALLOW: Instruction = (_ANSWER, 0, 0, 0x7FFF0000)

_SECCOMP = 317
_ARCH = 0xC000003E  # AUDIT_ARCH_X86_64
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


def command(choice: Sequence[Instruction], channel: int, *program: str) -> list[str]:
    """What becomes a program whose calls are handed over to whoever has the other end of the socket `channel`.

    `choice` has the number of the call loaded. Without a program it only tries.
    """
    return [sys.executable, "-I", "-S", __file__, json.dumps(choice), str(channel), *program]


def _hand_over(choice: Sequence[Instruction]) -> int:
    """Filter this process and its children from now on; returns the descriptor on which the calls arrive."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise OSError("the numbers of the system calls are those of Linux on x86_64")
    libc = ctypes.CDLL(None, use_errno=True)
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, _ARCH), ALLOW, (LOAD, 0, 0, 0), *choice, ALLOW]
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    text = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(text))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    found: int = libc.syscall(_SECCOMP, 1, 8, program)  # SET_MODE_FILTER, FLAG_NEW_LISTENER
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def listener(channel: socket.socket) -> int | None:
    """The descriptor on which the calls arrive of what was started; None where it could not begin."""
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    return descriptors[0] if descriptors else None


def receive(descriptor: int) -> tuple[int, int, int, list[int]] | None:
    """The next call: its number among the notices, thread, system call and arguments.

    None where it is gone: its thread was killed, or a signal took it away, and then it asks again.
    """
    notice = bytearray(80)
    try:
        fcntl.ioctl(descriptor, _RECEIVE, notice, True)
    except OSError:
        return None
    number, thread, _, call, _, _, *arguments = struct.unpack("QIIiIQ6Q", notice)
    return number, thread, call, arguments


def answer(descriptor: int, number: int, error: int) -> None:
    """Let a call happen, or end with the errno `error`."""
    with suppress(OSError):
        fcntl.ioctl(descriptor, _SEND, struct.pack("QqiI", number, 0, -error, 0 if error else _CONTINUE))


if __name__ == "__main__":
    descriptor = _hand_over([tuple(one) for one in json.loads(sys.argv[1])])
    if len(sys.argv) > 3:
        with socket.socket(fileno=int(sys.argv[2])) as own:
            socket.send_fds(own, [b"."], [descriptor])
        os.close(descriptor)
        os.execvp(sys.argv[3], sys.argv[3:])
