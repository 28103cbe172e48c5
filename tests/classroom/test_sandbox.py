"""The sandbox holds: what got out once is tried again, as this user and as another."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tools import chapters
from tools.classroom import grade, runner, sandbox

ATTACKS = r"""
import ctypes, json, os, signal, socket, subprocess, sys, time
outside, victim, listener = sys.argv[1], int(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
got = {}

def attempt(name):
    def run(function):
        try:
            got[name] = bool(function())
        except (OSError, subprocess.SubprocessError):
            got[name] = False
    return run

@attempt("remount")
def _():
    attributes = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
    for place in (b"/", outside.encode()):
        libc.syscall(442, -100, place, 0x8000, ctypes.byref(attributes), 32)
        libc.mount(None, place, None, 0x20 | 0x1000, None)
    os.makedirs(os.path.dirname(outside), exist_ok=True)
    open(outside, "w").close()
    return True

@attempt("write to the system")
def _():
    open("/usr/was-here", "w").close()
    return True

@attempt("capabilities")
def _():
    said = open("/proc/self/status").read().split()
    return int(said[said.index("CapEff:") + 1], 16)

@attempt("mounts after a new namespace")
def _():
    if libc.unshare(0x10000000 | 0x20000):
        return False
    return libc.umount2(b"/usr", 2) == 0

@attempt("kill")
def _():
    os.kill(victim, signal.SIGKILL)
    return True

@attempt("unix socket")
def _():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(listener)
    return True

@attempt("network")
def _():
    with socket.socket() as s:
        s.settimeout(1)
        s.connect(("203.0.113.1", 80))
    return True

@attempt("loopback of the teacher")
def _():
    with socket.socket() as s:
        s.settimeout(1)
        s.connect(("127.0.0.1", int(sys.argv[5])))
    return True

@attempt("environment")
def _():
    said = "".join(os.environ.values())
    for number in os.listdir("/proc"):
        if number.isdigit():
            try:
                said += open(f"/proc/{number}/environ").read()
            except OSError:
                pass
    return "SECR" + "ET" in said

@attempt("other processes")
def _():
    return "the-" + "victim" in "".join(
        open(f"/proc/{n}/cmdline").read() for n in os.listdir("/proc") if n.isdigit()
    )

@attempt("homes and run")
def _():
    return os.path.exists("/run/user") or os.path.exists(os.path.dirname(outside))

@attempt("its own scratch")
def _():
    open("/tmp/here", "w").close()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        socket.create_connection(s.getsockname()).close()
    return True

if os.fork() == 0:  # a child of a child of a session of its own
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(0.1)
    os._exit(0)
print(json.dumps(got), flush=True)
"""


def users():
    """This user, and an ordinary one if this one is root."""
    return [None] if os.name != "posix" or os.getuid() else [None, 65534]


def python_of(user):
    """A Python that the user may start: this one, or the system's."""
    for path in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run([path, "-c", ""], user=user, cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    pytest.fail(f"user {user} may start no Python")


def running(mark):
    """Whether a process with this word among its arguments is there."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue  # it has ended meanwhile
    return False


@pytest.mark.parametrize("way", ["bwrap", "unshare"])
def test_what_got_out_once_stays_in(way, monkeypatch):
    """Where no sandbox can be built, grading says so; see the last test."""
    if not sandbox.works(way):
        with pytest.raises(sandbox.NoSandboxError, match="does not work"):
            sandbox.find(way)
        return
    monkeypatch.setenv("A_TOKEN", "SECRET")
    for user in users():
        python = python_of(user)
        with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
            folder = Path(name)
            folder.chmod(0o755)
            (folder / "in").mkdir(mode=0o755)
            reachable = folder / "socket"
            with socket.socket(socket.AF_UNIX) as listener, socket.socket() as tcp:
                listener.bind(str(reachable))
                listener.listen()
                tcp.bind(("127.0.0.1", 0))
                tcp.listen()
                victim = subprocess.Popen(
                    [python, "-c", "input()", "the-victim"],
                    user=user,
                    stdin=subprocess.PIPE,
                    cwd="/",
                )
                plan = sandbox.make_plan([], sandbox.environment("/tmp", []))
                if user:  # who may not see this Python has the system's
                    plan.shown = {
                        k: v for k, v in plan.shown.items()
                        if k.startswith(("/usr", "/lib", "/bin", "/etc/ld"))
                    }  # fmt: skip
                    plan.files = {}
                command = sandbox.WAYS[way](plan, folder / "in")
                if way == "unshare":
                    copy = shutil.copy(sandbox.__file__, folder / "in")
                    command = [python, "-I", copy, command[-1]]
                for path in (folder / "in").iterdir():
                    path.chmod(0o644)
                mark = f"als-mark-{os.getpid()}-{user}"
                run = subprocess.Popen(
                    [*command, python, "-c", ATTACKS, str(folder / "out" / "here"),
                     str(victim.pid), str(reachable), mark, str(tcp.getsockname()[1])],
                    env=plan.environment, user=user,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
                    text=True,
                )  # fmt: skip
                said = run.stdout.readline()
                run.kill()
                _, problem = run.communicate()
                assert said, problem
                got = json.loads(said)
                assert victim.poll() is None
                victim.communicate(b"\n")
            assert got.pop("its own scratch"), way
            assert got == dict.fromkeys(got, False), (way, user)
            assert len(got) == 11
            assert not (folder / "out").exists()
            deadline = time.monotonic() + 10
            while running(mark) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not running(mark), "a process outlived its sandbox"


def test_where_no_sandbox_can_be_built_grading_refuses_unless_told(monkeypatch):
    monkeypatch.setattr(sandbox, "works", lambda way: way == "none")
    with pytest.raises(sandbox.NoSandboxError, match="SANDBOX=none"):
        sandbox.find()
    assert sandbox.find("none") == "none"
    with pytest.raises(sandbox.NoSandboxError, match="none of bwrap"):
        sandbox.find("hope")


def test_a_kernel_gets_listed_variables_only(monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    given = sandbox.environment("/tmp", ["/book"])
    assert "secret" not in given.values()
    assert given["TZ"] == "Europe/Berlin"
    assert given["PYTHONPATH"] == "/book"


# -- the hook -------------------------------------------------------------------------

REACH = """
import json, os, socket, sys
os.environ["NUMBA_CACHE_DIR"] = sys.argv[1]
from tools.classroom import runner
told = []
runner.refuse_what_leaves(sys.argv[1], told.append)
tries = [
    lambda: open("outside", "w"), lambda: os.mkdir("outside"),
    lambda: os.open("outside", os.O_CREAT), lambda: os.rename("here", "outside"),
    lambda: os.symlink("here", "outside"), lambda: os.remove("keep"),
    lambda: socket.create_connection(("203.0.113.1", 80), 1),
    lambda: socket.getaddrinfo("example.org", 80),
    lambda: open(sys.argv[1] + "-beside", "w"),
]
for attempt in tries:
    try:
        attempt()
    except PermissionError as error:
        assert "a graded notebook may not" in str(error)
    else:
        raise SystemExit("let through")
open(os.path.join(sys.argv[1], "inside"), "w").close()
os.makedirs(os.getcwd(), exist_ok=True)
open("keep").close()
assert len(told) == len(tries), told
"""


def test_the_hook_alone_refuses_writing_outside_and_other_hosts(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "keep").touch()
    run = subprocess.run(
        [sys.executable, "-c", REACH, str(tmp_path / "scratch")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(chapters.ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"scratch", "keep"}


def test_an_address_of_this_machine_is_not_refused():
    for near in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert runner.is_here((near, 80))
    for far in ("128.0.0.1", "localhost.example.org", "::2"):
        assert not runner.is_here((far, 80))
    assert runner.is_here("folder/socket")


def test_a_kernel_that_floods_the_grader_is_ended(small, way):
    settings = grade.Settings(1, way, small.folder / "warm")
    flood = """
import os
while True:
    for number in range(3, 9):
        try:
            os.write(number, b'x' * 10**6)
        except OSError:
            pass
"""
    with grade.started(small.assignment, settings) as kernel:
        with pytest.raises(grade.EndedError):
            kernel.ask("run", code=flood)
        assert sum(len(line or b"") for line in kernel.lines.queue) < 3 * grade.FLOOD
