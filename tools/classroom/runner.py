"""Run cells for the grader: the one program that meets code of students.

It stands in the sandbox of `sandbox.py`, needs nothing of this project, and speaks
lines of JSON: requests on its standard input, one reply to each on its standard
output. In between it sends what the audit hook has refused, at once, so that nobody
can take it back.

Answers are cells of IPython. Checks are not: they are compiled here and run statement
by statement, whatever has become of IPython, and each that came to its end hands back
the token that the grader made for it.
"""

import builtins
import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from types import ModuleType

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename",
    "os.rmdir", "os.symlink", "os.truncate", "os.utime",
}  # fmt: skip
PROGRAMS = {
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system",
    "subprocess.Popen",
}  # fmt: skip
ALLOWED = ("/dev/null", "/dev/shm", "/dev/tty", "/proc/self")
WATCHED = ("als_course", "numpy", "pandas", "scipy", "math", "statistics")
LONGEST = 2000  # characters of a message


class Stopped(BaseException):
    """A cell has had its seconds."""


def is_here(address) -> bool:
    """Whether a socket's address is on this machine."""
    if not isinstance(address, tuple):
        return True  # a path of this machine
    host = str(address[0])
    return host in ("localhost", "::1", "") or host.startswith("127.")


def refuse_what_leaves(scratch: str, tell) -> None:
    """Install the hook that says in words what the sandbox does not let happen."""
    inside = tuple(
        os.path.realpath(p) for p in (scratch, os.environ["NUMBA_CACHE_DIR"])
    )
    below = (*(p + os.sep for p in inside), *ALLOWED)
    realpath, fsdecode = os.path.realpath, os.fsdecode

    def refuse(kind: str, what: str = "") -> None:
        tell({"tried": [kind, what]})
        raise PermissionError(f"{kind} {what}: a graded notebook may not")

    def is_outside(path) -> bool:
        if isinstance(path, int) or path is None:
            return False
        path = realpath(fsdecode(path))
        return not (path in inside or path.startswith(below))

    def hook(event: str, details: tuple) -> None:
        if event == "open":
            path, mode, flags = details
            writes = (
                flags & WRITES if isinstance(flags, int) else "r" not in (mode or "r")
            )
            if writes and is_outside(path):
                refuse("write to", fsdecode(path))
        elif event in CHANGES:
            if event == "os.mkdir" and os.path.isdir(details[0]):
                return  # makedirs asks for folders that are there, and means no harm
            for path in details[:2]:
                if isinstance(path, str | bytes | os.PathLike) and is_outside(path):
                    refuse(event, fsdecode(path))
        elif event in PROGRAMS:
            tell({"started": str(details[0])[:100] if details else event})
        elif event in ("socket.connect", "socket.sendto") and not is_here(details[1]):
            refuse("connect to", str(details[1][0]))
        elif event == "socket.getaddrinfo":
            host = details[0]
            host = host.decode() if isinstance(host, bytes) else host
            if host and not is_here((host,)):
                refuse("look up", host)

    sys.addaudithook(hook)


def limit_resources(options: dict) -> None:
    """Bound memory, size of files and number of processes of this kernel."""
    if os.name != "posix":
        return
    import resource

    wanted = {
        "RLIMIT_DATA": options["memory"],
        "RLIMIT_FSIZE": options["file"],
        "RLIMIT_NPROC": options["processes"],
        "RLIMIT_CORE": 0,
    }
    for name, most in wanted.items():
        if most is not None and hasattr(resource, name):
            which = getattr(resource, name)
            _, hard = resource.getrlimit(which)
            if hard != resource.RLIM_INFINITY:
                most = min(most, hard)
            resource.setrlimit(which, (most, most))


class Originals:
    """What the functions of the libraries were before the first answer ran."""

    def __init__(self):
        self.known = []
        for name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType) and (
                module is builtins or name.partition(".")[0] in WATCHED
            ):
                self.keep(name, module)
        for _, names in list(self.known):
            for each in names.values():
                mine = getattr(each, "__module__", None) or ""
                if isinstance(each, type) and mine.startswith(("als_course", "pandas")):
                    self.keep(f"{mine}.{each.__name__}", each)

    def keep(self, name, owner):
        """Remember the functions and classes of a module or of a class."""
        names = {k: v for k, v in vars(owner).items() if callable(v)}
        self.known.append(((name, owner), names))

    def put_back(self) -> list[str]:
        """Undo what was changed, and list it."""
        changed = []
        for (name, owner), names in self.known:
            now = vars(owner)
            for key, value in names.items():
                if now.get(key) is not value:
                    changed.append(f"{name}.{key}")
                    with contextlib.suppress(AttributeError, TypeError):
                        setattr(owner, key, value)
        return changed


def describe(error: BaseException) -> list[str]:
    """Give the kind and the words of an exception, whatever its class does."""
    try:
        words = str(error)
    except Stopped:
        raise
    except BaseException:
        words = ""
    return [type(error).__name__[:100], words[:LONGEST]]


class Kernel:
    """A shell for answers, and the place where checks are run."""

    def __init__(self):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "NoColor"
        self.shell = InteractiveShell.instance(config=config)
        self.shell.showtraceback = self.shell.showsyntaxerror = lambda *a, **k: None
        self.names = self.shell.user_ns
        self.kept, self.chapter, self.originals = {}, {}, None

    def run(self, request: dict) -> dict:
        """Run a cell as Jupyter would."""
        try:
            result = self.shell.run_cell(request["code"])
            error = result.error_before_exec or result.error_in_exec
        except Exception as problem:  # half an emoji is too much for IPython
            error = problem
        if isinstance(error, Stopped):
            raise error
        line = getattr(error, "lineno", None)
        return {"error": describe(error) if error else None, "line": line}

    def begin(self, request: dict) -> dict:
        """Remember what the chapter has defined: from here on, students write."""
        before = {"In", "Out", "exit", "quit", "open", "get_ipython"}
        self.chapter = {
            name: value
            for name, value in self.names.items()
            if name not in before and not name.startswith("_")
        }
        self.originals = Originals()
        return {}

    def check(self, request: dict) -> dict:
        """Run the statements of a check, each with its token; say which came home.

        Names that the chapter has defined have the chapter's values meanwhile. The
        check that students see leaves its names behind, as it does in their notebook;
        the hidden one begins where that ended, whatever came later.
        """
        sys.settrace(None)
        sys.setprofile(None)
        changed = self.originals.put_back() if self.originals else []
        names, theirs = self.names, dict(self.names)
        if hidden := request["start"]:
            names.clear()
            names.update(self.kept[hidden])
        names["__builtins__"] = builtins
        replaced = {
            name: names.get(name, ...)
            for name in request["names"]
            if name in self.chapter and names.get(name, ...) is not self.chapter[name]
        }
        names.update({name: self.chapter[name] for name in replaced})
        try:
            results = [self.step(code, token) for code, token in request["items"]]
        finally:
            names.update(replaced)
            if request["keep"]:
                self.kept[request["keep"]] = dict(names)
            if hidden:
                names.clear()
                names.update(theirs)
        return {"results": results, "changed": changed, "replaced": list(replaced)}

    def step(self, code: str, token: str) -> list:
        """Run one statement of a check."""
        told = []
        name = f"_{token}"
        self.names[name] = told.append
        try:
            program = compile(f"{code}\n{name}({token!r})", "<check>", "exec")
            exec(program, self.names)
        except Stopped:
            raise
        except BaseException as error:
            return [None, *describe(error)]
        finally:
            self.names.pop(name, None)
        return [told[0] if told else None, "", ""]


def set_alarm(seconds: float) -> None:
    """Let `Stopped` be raised after these seconds of work, or never after 0.

    Seconds of work and not of the clock, so that a busy machine is no reason. Who
    catches `Stopped` and goes on has half of a second before the process ends.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.5 if seconds else 0)


def stop() -> None:
    """Install what happens at the alarm."""
    rung = []

    def ring(number, frame):
        rung.append(number)
        if len(rung) % 2 == 0:
            os._exit(86)
        raise Stopped

    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, ring)
    return rung


def take_pipes():
    """Keep the two pipes to the grader; programs that are started get nothing."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    return requests, replies


def prepare(options: dict) -> None:
    """Bring what is warm into the scratch folder, and stand in it."""
    scratch = os.environ["ALS_SCRATCH"]
    os.chdir(scratch)
    for name, source in options["copies"].items():
        if os.path.isdir(source):
            shutil.copytree(source, os.path.join(scratch, name), dirs_exist_ok=True)
    for name in ("home", "tmp", "cache"):
        os.makedirs(os.path.join(scratch, name), exist_ok=True)
    if options["cache"] and os.path.isdir(options["cache"]):
        for entry in os.scandir(options["cache"]):
            if not entry.name.endswith((".log", ".lock")):
                os.symlink(entry.path, os.path.join(scratch, "cache", entry.name))


def main() -> None:
    """Answer requests until there are no more."""
    requests, replies = take_pipes()
    write, dumps, lock = os.write, json.dumps, threading.Lock()

    def send(value: dict) -> None:
        content = (dumps(value) + "\n").encode()
        with lock:
            while content:
                content = content[write(replies, content) :]

    options = json.loads(requests.readline())
    prepare(options)
    limit_resources(options)
    kernel, rung = Kernel(), stop()
    refuse_what_leaves(os.environ["ALS_SCRATCH"], send)
    send({"id": options["id"], "ready": True})
    for line in requests:
        request = json.loads(line)
        act = {"run": kernel.run, "begin": kernel.begin, "check": kernel.check}
        rung.clear()
        begin = time.process_time()
        try:
            set_alarm(request["limit"])
            try:
                reply = act[request["do"]](request)
            finally:
                set_alarm(0)
        except Stopped:
            reply = {"stopped": True}
        took = time.process_time() - begin
        send({"id": request["id"], "took": took, **reply})


if __name__ == "__main__":
    main()
