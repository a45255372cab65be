"""Take away what a converter of foreign weights does not need: network, programs, files, time.

A checkpoint may hold a program that runs when it is opened. The process that opens one gives up,
before it does and for good: sockets, new processes, reaching into other processes (seccomp(2)),
writing outside of its own folder (landlock(7), where the kernel has it), more memory and processor
time than it was given (setrlimit(2)). Linux on x86-64 and aarch64; elsewhere nothing is imported.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
"""The filter holds for every thread of the process, also those that libraries have started."""
_ALLOW, _DENY, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
"""What a filter answers: allow, EPERM, ENOSYS (glibc then takes the older call), kill."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of the classic packet filter (linux/bpf_common.h)."""
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
"""Offsets in struct seccomp_data."""
_CLONE_THREAD: Final = 0x10000
_OTHER_TABLE: Final = 0x40000000
"""Calls of the x32 table begin here."""
_CLONE3: Final = 435

_LANDLOCK: Final = (444, 445, 446)
"""landlock_create_ruleset, landlock_add_rule, landlock_restrict_self: the same on all machines."""
_LANDLOCK_WRITES: Final = 0x1FF2
"""Writing, removing and making files of every kind (ABI 1)."""
_LANDLOCK_LATER: Final = MappingProxyType({2: 0x2000, 3: 0x4000})
"""ABI -> further rights: moving between folders, truncating."""


class NoIsolation(Exception):
    """The machine cannot take the rights away, so nothing foreign is opened here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """Numbers of system calls on a processor."""

    audit: int
    seccomp: int
    clone: int
    forbidden: tuple[int, ...]
    """socket, socketpair, connect, accept, accept4, bind, listen, sendto, sendmsg, sendmmsg, fork,
    vfork, execve, execveat, kill, ptrace, process_vm_readv and _writev, mount, unshare, setns, bpf,
    io_uring_setup, keyctl, pidfd_getfd."""


_MACHINES: Final = MappingProxyType(
    {
        "x86_64": _Machine(
            audit=0xC000003E,
            seccomp=317,
            clone=56,
            forbidden=(41, 53, 42, 43, 288, 49, 50, 44, 46, 307, 57, 58, 59, 322, 62, 101, 310, 311,
                       165, 272, 308, 321, 425, 250, 438),
        ),
        "aarch64": _Machine(
            audit=0xC00000B7,
            seccomp=277,
            clone=220,
            forbidden=(198, 199, 203, 202, 242, 200, 201, 206, 211, 269, 221, 281, 129, 117, 270,
                       271, 40, 97, 268, 280, 425, 219, 438),
        ),
    }
)  # fmt: skip


def die_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit(memory_bytes: int, cpu_s: int) -> None:
    """Bound address space and processor time, and write no core: it would hold weights."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def lock(writable: Path) -> None:
    """Give up network, programs and files outside of `writable`, for every thread and for good.

    To be called when all libraries are loaded: some of them start programs as they are.

    Raises
    ------
    NoIsolation
        Where the kernel or the processor has no filter for system calls.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise NoIsolation("the kernel does not let a process give up its rights")
    _keep_files(library, writable)
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise NoIsolation(f"no filter of system calls is known for {platform.machine()}")
    program = _filter(machine)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    head = struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(code))
    if library.syscall(machine.seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, head):
        raise NoIsolation("the kernel has no filter of system calls (seccomp)")


def _filter(machine: _Machine) -> list[tuple[int, int, int, int]]:
    """Return the filter: (instruction, jump if true, jump if false, operand) a line."""
    forbidden = [(_EQUAL, 0, 1, number) for number in machine.forbidden]
    lines = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _OTHER_TABLE),
        (_RETURN, 0, 0, _DENY),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _UNKNOWN),
    ]
    for line in forbidden:
        lines += [line, (_RETURN, 0, 0, _DENY)]
    return [
        *lines,
        (_EQUAL, 0, 3, machine.clone),  # a thread may be made, a process may not
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _keep_files(library: ctypes.CDLL, writable: Path) -> None:
    """Let this process write below `writable` only, where the kernel can."""
    create, add, restrict = _LANDLOCK
    version = library.syscall(create, None, 0, 1)
    if version < 1:
        return
    rights = _LANDLOCK_WRITES
    for since, more in _LANDLOCK_LATER.items():
        rights |= more if version >= since else 0
    rules = library.syscall(create, struct.pack("=Q", rights), 8, 0)
    if rules < 0:
        return
    folder = os.open(writable, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = struct.pack("=Qi", rights, folder)
        if library.syscall(add, rules, 1, allowed, 0) == 0:
            library.syscall(restrict, rules, 0)
    finally:
        with contextlib.suppress(OSError):
            os.close(rules)
        os.close(folder)
