"""The sandbox in which the code of students runs.

On Linux `bwrap`, bubblewrap, builds it; where it is not installed the same is done
here by system calls. The kernel of a student sees the system's programs, this Python,
the library, the jobs and the data, all read-only, and one scratch folder in memory
that vanishes with it. It has no network but a loopback of its own, no other process,
no home, no `/run`, no capability and no way to get one, and of the environment only
what is listed here. It ends with the grader, and everything that it started with it.

Where neither can be had, `find` says so, and only `SANDBOX=none` goes on: then nothing
but a hook inside Python stands in the way of that code.
"""

import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

RUNNER = Path(__file__).with_name("runner.py")
SCRATCH = "/tmp"  # inside
SCRATCH_SIZE = 1 << 30
HOST = "sandbox"
PASSED_ON = ("LANG", "LC_ALL", "TZ", "ALS_COURSE_AMAZON", "ALS_COURSE_LASTFM")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
SETTINGS = (
    "alternatives", "fonts", "java*", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "localtime", "mime.types",
)  # fmt: skip
ACCOUNT = {
    "passwd": "student:x:{user}:{group}::/tmp/home:/bin/sh\n",
    "group": "student:x:{group}:\n",
    "hosts": f"127.0.0.1 localhost {HOST}\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
DEVICES = ("null", "zero", "full", "random", "urandom")
CLONE = {
    "NEWNS": 0x00020000, "NEWUTS": 0x04000000, "NEWIPC": 0x08000000,
    "NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000,
}  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 0x1, 0x2, 0x4, 0x20
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPABILITY_VERSION_3 = 0x20080522


class NoSandboxError(SystemExit):
    """No sandbox can be built on this machine."""


@dataclass
class Plan:
    """What a kernel may see and what it is told."""

    shown: dict[str, str]  # read-only: the place, and what is shown there
    environment: dict[str, str]
    links: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # place: content
    writable: str | None = None


def make_plan(
    shown: list[Path], environment: dict[str, str], writable: Path | None = None
) -> Plan:
    """Add what every kernel needs: the system, this Python, an account."""
    paths = [
        *(path.absolute() for path in shown),
        RUNNER,
        Path(sys.prefix),
        Path(sys.base_prefix),
    ]
    paths.append(Path(sys.executable).resolve().parents[1])
    paths += [p for name in SETTINGS for p in sorted(Path("/etc").glob(name))]
    links = {}
    for path in map(Path, SYSTEM):
        if path.is_symlink():  # on most systems /lib is a link into /usr
            links[str(path)] = os.readlink(path)
        elif path.is_dir():
            paths.append(path)
    wanted = sorted({str(path) for path in paths if path.exists()})
    shown = {
        place: os.path.realpath(place)
        for place in wanted
        if not any(place.startswith(other + os.sep) for other in wanted)
    }
    account = {"user": os.getuid(), "group": os.getgid()}
    files = {f"/etc/{name}": text.format(**account) for name, text in ACCOUNT.items()}
    writes = str(writable.absolute()) if writable else None
    return Plan(shown, environment, links, files, writes)


def environment(scratch: str, python_path: list[str]) -> dict[str, str]:
    """List the variables that a kernel gets; those of the teacher stay outside."""
    programs = [str(Path(sys.executable).parent), *os.defpath.split(os.pathsep)]
    if java := os.environ.get("JAVA_HOME"):
        programs.append(str(Path(java) / "bin"))
    said = {
        "ALS_SCRATCH": scratch,
        "ALS_COURSE_OFFLINE": "1",
        "ALS_COURSE_CACHE": f"{scratch}/cache",
        "HOME": f"{scratch}/home",
        "IPYTHONDIR": f"{scratch}/ipython",
        "JDK_JAVA_OPTIONS": f"-Djava.io.tmpdir={scratch}/tmp -XX:-UsePerfData",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{scratch}/matplotlib",
        "NUMBA_CACHE_DIR": f"{scratch}/numba",
        "PATH": os.pathsep.join(programs),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(python_path),
        "SPARK_LOCAL_DIRS": f"{scratch}/tmp",
        "TMPDIR": f"{scratch}/tmp",
        "TQDM_DISABLE": "1",
    }
    for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA"):
        said[f"{library}_NUM_THREADS"] = "1"  # other kernels have the other cores
    names = ("JAVA_HOME", "ALS_COURSE_DATA", *PASSED_ON)
    if os.name == "nt":
        names += ("SYSTEMROOT", "PATHEXT", "COMSPEC")
    return said | {name: os.environ[name] for name in names if name in os.environ}


# -- three ways to start a kernel -----------------------------------------------------


def by_bubblewrap(plan: Plan, folder: Path) -> list[str]:
    """Write the command that starts the kernel in bubblewrap's sandbox."""
    command = [
        "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
    ]
    command += ["--hostname", HOST, "--cap-drop", "ALL", "--clearenv"]
    command += more_of_bubblewrap()
    for name, value in plan.environment.items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for place in (SCRATCH, "/dev/shm"):
        command += ["--size", str(SCRATCH_SIZE), "--tmpfs", place]
    for place, target in plan.links.items():
        command += ["--symlink", target, place]
    for place, source in plan.shown.items():
        command += ["--ro-bind", source, place]
    if plan.writable:
        command += ["--bind", plan.writable, plan.writable]
    for number, (place, content) in enumerate(plan.files.items()):
        (folder / str(number)).write_text(content, "utf-8")
        command += ["--ro-bind", str(folder / str(number)), place]
    return [
        *command,
        "--remount-ro",
        "/",
        "--remount-ro",
        "/dev",
        "--chdir",
        SCRATCH,
        "--",
    ]


@functools.cache
def more_of_bubblewrap() -> tuple[str, ...]:
    """List options that older versions lack."""
    run = subprocess.run(["bwrap", "--help"], capture_output=True, text=True)
    return tuple(x for x in ("--disable-userns",) if x in run.stdout + run.stderr)


def by_system_calls(plan: Plan, folder: Path) -> list[str]:
    """Write the command that builds the sandbox without bubblewrap."""
    path = folder / "plan.json"
    path.write_text(json.dumps(asdict(plan)), "utf-8")
    return [sys.executable, "-I", str(Path(__file__).resolve()), str(path)]


def by_nothing(plan: Plan, folder: Path) -> list[str]:
    """Write the command that starts a kernel as a child of a process in between."""
    program = (
        "import json, subprocess, sys\n"
        "sys.exit(subprocess.call(sys.argv[2:], env=json.loads(sys.argv[1])))"
    )
    return [sys.executable, "-I", "-c", program, json.dumps(plan.environment)]


WAYS = {"bwrap": by_bubblewrap, "unshare": by_system_calls, "none": by_nothing}


@functools.cache
def works(way: str) -> bool:
    """Try whether this system lets a sandbox be built in this way."""
    if way == "none":
        return True
    if sys.platform != "linux" or (way == "bwrap" and not shutil.which("bwrap")):
        return False
    with tempfile.TemporaryDirectory(prefix="als-") as folder:
        plan = make_plan([], environment(SCRATCH, []))
        command = WAYS[way](plan, Path(folder))
        command += [sys.executable, "-I", "-c", "print('it stands')"]
        run = subprocess.run(command, capture_output=True, text=True)
    return run.stdout == "it stands\n"


def find(wanted: str | None = None) -> str:
    """Name the way to build a sandbox here; `wanted` is the teacher's word for it."""
    if wanted:
        if wanted not in WAYS:
            raise NoSandboxError(f"SANDBOX={wanted} is none of {', '.join(WAYS)}")
        if not works(wanted):
            raise NoSandboxError(f"SANDBOX={wanted} does not work on this machine")
        return wanted
    for way in ("bwrap", "unshare"):
        if works(way):
            return way
    raise NoSandboxError(
        "No sandbox can be built here, and the notebooks would run with all your "
        "rights. Grade on Linux with bubblewrap (apt install bubblewrap), in a "
        "virtual machine or a container that may make namespaces. "
        "If you trust every notebook, say so: make grade SUBMISSIONS=folder "
        "SANDBOX=none"
    )


@contextlib.contextmanager
def start(
    way: str, shown: list[Path], python_path: list[str], warm: Path | None = None
):
    """Start a kernel; give its process, and end all of it afterwards.

    Whoever reads its output closes it.

    Parameters
    ----------
    way : {"bwrap", "unshare", "none"}
        How the sandbox is built.
    shown : list of Path
        What the kernel may read besides the system and Python.
    python_path : list of str
        Where it finds modules.
    warm : Path, optional
        A folder that it may write to, for what Numba compiles of trusted code.
    """
    with tempfile.TemporaryDirectory(
        prefix="als-", ignore_cleanup_errors=True
    ) as folder:
        scratch = SCRATCH if way != "none" else str(Path(folder).resolve() / "scratch")
        if way == "none":
            os.mkdir(scratch)
        told = environment(scratch, python_path)
        if warm:
            told["NUMBA_CACHE_DIR"] = str(warm.absolute())
        plan = make_plan(shown, told, warm)
        command = WAYS[way](plan, Path(folder))
        process = subprocess.Popen(
            [*command, sys.executable, str(RUNNER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=plan.environment,  # else /proc shows the teacher's
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError, AttributeError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):  # what it did not read
                process.stdin.close()


# -- the same without bubblewrap ------------------------------------------------------


class Calls:
    """System calls that Python lacks; each raises OSError where it fails."""

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)

    def __call__(self, name: str, *arguments) -> None:
        """Call a function of the C library."""
        given = [os.fsencode(a) if isinstance(a, str) else a for a in arguments]
        if getattr(self.libc, name)(*given) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    def drop_capabilities(self) -> None:
        """Give up all that this process may do more than others, for good."""
        self("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
            self("prctl", PR_CAPBSET_DROP, number, 0, 0, 0)
        head = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        self("capset", head, (ctypes.c_uint32 * 6)())


def build_root(call: Calls, plan: Plan) -> None:
    """Show what the plan says under a new root, and leave the old one."""
    root = "/tmp"  # any folder will do: it is covered in this namespace alone
    call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    call("mount", "tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir(f"{root}/old")
    call("pivot_root", root, f"{root}/old")
    os.chdir("/")
    for name in ("proc", "dev", "tmp", "etc"):
        os.mkdir(f"/{name}")
    call("mount", "proc", "/proc", "proc", MS_NOSUID | MS_NODEV, None)
    for name in DEVICES:
        show(call, f"/old/dev/{name}", f"/dev/{name}", MS_NOSUID)
    os.mkdir("/dev/shm")
    sizes = f"size={SCRATCH_SIZE},mode=1777"
    call("mount", "tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, sizes)
    call("mount", "tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, sizes)
    for place, target in plan.links.items():
        os.symlink(target, place)
    for place, source in plan.shown.items():
        show(call, f"/old{source}", place)
    if plan.writable:
        show(call, f"/old{plan.writable}", plan.writable, writable=True)
    for place, content in plan.files.items():
        Path(place).write_text(content, "utf-8")
    call("umount2", "/old", MNT_DETACH)
    os.rmdir("/old")
    call("mount", None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, None)


def show(
    call: Calls,
    source: str,
    place: str,
    flags: int = MS_NOSUID | MS_NODEV,
    writable: bool = False,
) -> None:
    """Show a file or folder of the old root at a place, mostly read-only."""
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        Path(place).touch()
    call("mount", source, place, None, MS_BIND | MS_REC, None)
    flags |= MS_REMOUNT | MS_BIND | (0 if writable else MS_RDONLY)
    call("mount", None, place, None, flags, None)


def bring_up_loopback() -> None:
    """Give the new network its loopback, which Spark talks over."""
    import fcntl
    import socket
    import struct

    up_and_running, set_flags = 0x1 | 0x40, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, set_flags, struct.pack("16sH", b"lo", up_and_running))


def enter(plan: Plan, command: list[str]) -> None:
    """Build the sandbox around a child, which becomes the command; wait for it."""
    call = Calls()
    user, group = os.getuid(), os.getgid()
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("unshare", sum(CLONE.values()))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    build_root(call, plan)
    call("sethostname", HOST, len(HOST))
    bring_up_loopback()
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    os.chdir(SCRATCH)
    call.drop_capabilities()
    os.execve(command[0], command, plan.environment)


if __name__ == "__main__":
    enter(Plan(**json.loads(Path(sys.argv[1]).read_text("utf-8"))), sys.argv[2:])
