"""Start a kernel that student code cannot easily reach out of.

Two layers. Where Linux allows it, the kernel gets namespaces of its own: no network
but its own loopback, and every file system read-only except its scratch folder. On
every system an audit hook refuses the same and writes down what was tried. The hook is
the friendly layer: it says what was wrong. Neither makes grading a sandbox: use an
account without rights, or a container, for notebooks that you do not trust.

The environment gives `ALS_SCRATCH`, the one folder to write in, and `ALS_SANDBOX_LOG`,
the file for what was tried.
"""

import ctypes
import os
import socket
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, RDONLY = 442, -100, 0x8000, 1
MEMORY = 4 << 30  # bytes that a kernel may have; a Java machine has a limit of its own
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename",
    "os.rmdir", "os.symlink", "os.truncate", "os.utime",
}  # fmt: skip
ALLOWED = ("/dev/null", "/dev/shm", "/dev/tty", "/proc/self")


def raise_if(failed: int) -> None:
    """Turn a C return value into an exception."""
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def set_read_only(libc, path: bytes, flags: int, read_only: bool) -> None:
    """Change whether a mount, or with AT_RECURSIVE a tree of them, is read-only."""
    attributes = (ctypes.c_uint64 * 4)(
        *([RDONLY, 0] if read_only else [0, RDONLY]), 0, 0
    )
    raise_if(
        libc.syscall(
            SYS_MOUNT_SETATTR,
            AT_FDCWD,
            path,
            flags,
            ctypes.byref(attributes),
            ctypes.sizeof(attributes),
        )
    )


def enter_namespaces(scratch: Path) -> None:
    """Leave the network, and make everything but the scratch folder read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    raise_if(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    raise_if(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    here = os.fsencode(scratch)
    raise_if(libc.mount(here, here, None, MS_BIND | MS_REC, None))
    set_read_only(libc, b"/", AT_RECURSIVE, read_only=True)
    set_read_only(libc, here, 0, read_only=False)
    os.chdir(scratch)  # where we stood is the read-only place below it
    bring_up_loopback()


def bring_up_loopback() -> None:
    """Give the new network its loopback, which Spark and Jupyter talk over."""
    import fcntl
    import struct

    up_and_running, set_flags = 0x1 | 0x40, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, set_flags, struct.pack("16sH", b"lo", up_and_running))


def is_here(address) -> bool:
    """Whether a socket's address is on this machine."""
    if not isinstance(address, tuple):
        return True  # a path of this machine
    host = str(address[0])
    return host in ("localhost", "::1", "") or host.startswith("127.")


def refuse_what_leaves(scratch: Path, log: int) -> None:
    """Install the hook; nothing in Python can take it away again."""
    inside = str(scratch.resolve())

    def refuse(what: str) -> None:
        os.write(log, (what + "\n").encode())
        raise PermissionError(f"{what}: a graded notebook may not")

    def is_outside(path) -> bool:
        if isinstance(path, int) or path is None:
            return False
        path = os.path.realpath(os.fsdecode(path))
        return not path.startswith((inside, *ALLOWED))

    def hook(event: str, details: tuple) -> None:
        if event == "open":
            path, mode, flags = details
            writes = (
                flags & WRITES if isinstance(flags, int) else "r" not in (mode or "r")
            )
            if writes and is_outside(path):
                refuse(f"write to {os.fsdecode(path)}")
        elif event in CHANGES:
            for path in details[:2]:
                if isinstance(path, str | bytes | os.PathLike) and is_outside(path):
                    refuse(f"{event} {os.fsdecode(path)}")
        elif event in ("socket.connect", "socket.sendto") and not is_here(details[1]):
            refuse(f"connect to {details[1][0]}")
        elif event == "socket.getaddrinfo":
            host = details[0]
            host = host.decode() if isinstance(host, bytes) else host
            if host and not is_here((host,)):
                refuse(f"look up {host}")

    sys.addaudithook(hook)


def build() -> None:
    """Build the sandbox around this process, as far as the system lets us."""
    scratch = Path(os.environ["ALS_SCRATCH"])
    log = os.open(os.environ["ALS_SANDBOX_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if os.environ.get("ALS_LIMIT_MEMORY") == "1" and sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        enter_namespaces(scratch)
        os.write(log, b"# namespaces\n")
    except (OSError, AttributeError) as problem:
        os.write(log, f"# no namespaces: {problem}\n".encode())
    refuse_what_leaves(scratch, log)


def main() -> None:
    """Build the sandbox, then become the kernel."""
    build()
    sys.argv = ["ipykernel_launcher", *sys.argv[1:]]
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
