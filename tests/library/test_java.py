"""Java is found or fetched.

The search meets made-up Javas, which are shell scripts, and a web server on loopback
in the place of the download site.
"""

import functools
import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cjdk
import numpy as np
import pytest

import faultserver
from als_course import java
from als_course.java import JavaError
from faultserver import FaultServer

BOOK = Path(java.__file__).parents[1]
COMMANDS = ["sudo apt install", "sudo dnf install", "brew install", "winget install"]

# It needs no other program, so it works with an empty PATH.
SCRIPT = """#!/bin/sh
case "$*" in
*--list-modules*) echo java.base@{version}; echo {module}@{version} ;;
*-version*) echo "    java.home = ${{0%/bin/java}}" >&2
            echo 'openjdk version "{version}" 2023-10-17' >&2 ;;
*) exit 3 ;;
esac
"""


def script(version="17.0.9", module="jdk.incubator.vector"):
    return SCRIPT.format(version=version, module=module)


def put_java(home, text=None, mode=0o755):
    """Put a java into a folder, and return the folder."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(text or script(), "utf-8")
    program.chmod(mode)
    return home


def path_of(*homes):
    return os.pathsep.join(str(home / "bin") for home in homes)


@pytest.fixture
def machine(tmp_path, monkeypatch, caplog):
    """A machine without Java and without a network; gives a folder to put some in."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("ALS_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ALS_COURSE_OFFLINE", "1")
    monkeypatch.setattr(java, "JAVA_TIMEOUT", 5)
    caplog.set_level(logging.INFO, "als_course.java")
    return tmp_path


OLD = "#!/bin/sh\necho 'java version \"1.8.0_392\"' >&2\n"  # as Java 8 says it
BROKEN = {
    "exits": ("#!/bin/sh\necho no libjvm.so >&2\nexit 1\n", "status 1", "no libjvm.so"),
    "is-silent": ("#!/bin/sh\n", "does not say its version"),
    "is-no-program": ("\0\0\0\0", "cannot be run"),
    "is-java-8": (OLD, "Java 8, older than 17"),
    "is-java-11": (script("11.0.21"), "Java 11, older than 17"),
    "lacks-the-module": (script(module="java.sql"), "lacks the module jdk.incubator"),
    "hides-its-home": (
        script().replace("java.home", "user.home"),
        "does not say its java.home",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("where", ["JAVA_HOME", "PATH"])
def test_a_java_that_will_not_do_is_skipped_with_the_reason(
    machine, monkeypatch, caplog, kind, where
):
    text, *reasons = BROKEN[kind]
    broken, good = put_java(machine / "broken", text), put_java(machine / "good")
    if where == "JAVA_HOME":
        monkeypatch.setenv("JAVA_HOME", str(broken))
        monkeypatch.setenv("PATH", path_of(good))
    else:
        monkeypatch.setenv("PATH", path_of(broken, good))
    assert java.find_java() == good
    (skipped,) = [line for line in caplog.messages if line.startswith("Not ")]
    assert str(broken) in skipped
    for reason in reasons:
        assert reason in skipped


@pytest.mark.parametrize("kind", ["no-folder", "a-file", "empty", "not-executable"])
def test_a_java_home_without_a_java_is_skipped(machine, monkeypatch, caplog, kind):
    home = machine / "home"
    if kind == "a-file":
        home.write_text("not a folder")
    elif kind == "empty":
        (home / "bin").mkdir(parents=True)
    elif kind == "not-executable":
        put_java(home, mode=0o644)
    good = put_java(machine / "good")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", path_of(good))
    assert java.find_java() == good
    assert f"Not JAVA_HOME={home}: {home / 'bin'} holds no program java" in caplog.text


def test_a_java_that_hangs_is_given_up(machine, monkeypatch, caplog):
    monkeypatch.setattr(java, "JAVA_TIMEOUT", 0.5)
    hanging = put_java(machine / "hanging", "#!/bin/sh\nexec /bin/sleep 60\n")
    good = put_java(machine / "good")
    monkeypatch.setenv("JAVA_HOME", str(hanging))
    monkeypatch.setenv("PATH", path_of(hanging, good))
    started = time.monotonic()
    assert java.find_java() == good
    assert time.monotonic() - started < 10
    assert caplog.text.count("gave no answer in 0.5 seconds") == 1  # not asked twice


def test_java_home_comes_before_the_path(machine, monkeypatch):
    home, other = put_java(machine / "home"), put_java(machine / "other")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", path_of(other))
    assert java.find_java() == home


def test_java_8_in_front_does_not_hide_the_java_in_java_home(machine, monkeypatch):
    home = put_java(machine / "home")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", path_of(put_java(machine / "old", OLD)))
    assert java.find_java() == home


@pytest.mark.parametrize("version", ["17", "17.0.9", "21.0.5", "25-ea"])
def test_17_and_everything_newer_will_do(machine, monkeypatch, version):
    good = put_java(machine / "good", script(version))
    monkeypatch.setenv("PATH", path_of(good))
    assert java.find_java() == good


def test_a_script_on_the_path_leads_to_the_home_of_what_it_runs(machine, monkeypatch):
    good = put_java(machine / "good")
    shim = put_java(machine / "shims", f'#!/bin/sh\nexec "{good}/bin/java" "$@"\n')
    monkeypatch.setenv("PATH", path_of(shim))
    assert java.find_java() == good


def test_without_any_java_the_error_lists_all_that_was_tried(machine, monkeypatch):
    old, broken = (
        put_java(machine / "old", OLD),
        put_java(machine / "broken", BROKEN["exits"][0]),
    )
    monkeypatch.setenv("JAVA_HOME", str(machine / "gone"))
    monkeypatch.setenv("PATH", path_of(old, broken))
    with pytest.raises(JavaError) as caught:
        java.find_java()
    said = str(caught.value).splitlines()
    tried = [line for line in said if line.startswith("  - ")]
    assert "Java 17 or newer with the module jdk.incubator.vector" in said[0]
    assert f"JAVA_HOME={machine / 'gone'}" in tried[0]
    assert f"{old}/bin/java on the PATH: it is Java 8" in tried[1]
    assert "ended with status 1" in tried[2]
    assert "download: not tried, ALS_COURSE_OFFLINE is set" in tried[3]
    for command in COMMANDS:
        assert any(command in line for line in said), command


# -- the download site --------------------------------------------------------------


def archive(text=None, name="jdk-17.0.9+9/bin/java"):
    """A packed Java, padded so that half of it is well inside."""
    packed = io.BytesIO()
    noise = np.random.default_rng(0).bytes(100_000)
    members = {name: (text or script()).encode(), "jdk-17.0.9+9/lib/modules": noise}
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), 0o755
            file.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def index(url, vendor="adoptium"):
    releases = {f"jdk@{vendor}": {"1.17.0.9": url, "1.8.0.392": url + ".old"}}
    systems = ("linux", "darwin", "windows")
    return json.dumps(
        {system: {"amd64": releases, "arm64": releases} for system in systems}
    ).encode()


@pytest.fixture
def site(machine, monkeypatch):
    """A healthy download site on loopback, which a test may spoil."""
    monkeypatch.delenv("ALS_COURSE_OFFLINE")
    insecure = functools.partial(cjdk.java_home, _allow_insecure_for_testing=True)
    monkeypatch.setattr(cjdk, "java_home", insecure)
    monkeypatch.setattr(java, "TIMEOUT", 0.5)
    # The bars hold on to the stderr that was there when they were imported.
    monkeypatch.setenv("CJDK_HIDE_PROGRESS_BARS", "1")
    with FaultServer() as server:
        monkeypatch.setenv("CJDK_INDEX_URL", server.url("/index.json"))
        mend(server)
        yield server


def mend(server):
    packed = "tgz+" + server.url("/java.tar.gz")
    server.answers["/index.json"] = faultserver.content(index(packed))
    server.answers["/java.tar.gz"] = faultserver.content(archive())


def test_java_is_fetched_once_and_then_needs_no_network(machine, site, monkeypatch):
    home = java.find_java()
    assert home == machine / "cache" / "java-17"
    assert os.access(home / "bin" / "java", os.X_OK)
    assert site.asked == ["/index.json", "/java.tar.gz"]
    site.answers.clear()
    assert java.find_java() == home
    monkeypatch.setenv("ALS_COURSE_OFFLINE", "1")
    assert java.find_java() == home
    assert len(site.asked) == 2
    assert [path.name for path in (machine / "cache").iterdir()] == ["java-17"]


def test_a_download_shows_its_progress(machine, site, monkeypatch):
    monkeypatch.delenv("CJDK_HIDE_PROGRESS_BARS")
    monkeypatch.setenv("PYTHONPATH", str(BOOK))
    code = (
        "import cjdk, functools; from als_course import java;"
        "cjdk.java_home = functools.partial("
        "    cjdk.java_home, _allow_insecure_for_testing=True);"
        "raise SystemExit(java.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"Java for Spark: {machine / 'cache' / 'java-17'}\n"
    assert "Installing JDK adoptium:1.17.0.9" in done.stderr
    assert re.search(r"Download\W.*100%", done.stderr)


@pytest.mark.parametrize("path", ["/index.json", "/java.tar.gz"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faultserver.status(404), "404"),
        (faultserver.status(503), "503"),
        (faultserver.html_page(), "Invalid|invalid|not a gzip file"),
        (faultserver.content(b""), "Invalid|empty file"),
        (faultserver.content("é".encode() * 99), "codec|not a gzip file"),
        (faultserver.content(archive()[:60_000]), "codec|end|Invalid"),
        (faultserver.breaks_off(archive(), 60_000), "broken|IncompleteRead"),
        (faultserver.hangs(archive(), 60_000), "timed out"),
        (faultserver.hangs(), "timed out"),
    ],
    ids=[
        "404",
        "503",
        "page",
        "empty",
        "bytes",
        "cut",
        "breaks-off",
        "stalls",
        "hangs",
    ],
)
def test_a_failed_download_is_a_clear_error_and_leaves_nothing(
    machine, site, path, fault, reason
):
    site.answers[path] = fault
    with pytest.raises(JavaError, match=f"- download: .*({reason})") as caught:
        java.find_java()
    for command in COMMANDS:
        assert command in str(caught.value)
    assert list((machine / "cache").iterdir()) == []
    mend(site)
    assert java.find_java() == machine / "cache" / "java-17"


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (archive(BROKEN["exits"][0]), "status 1"),
        (archive(OLD), "older than 17"),
        (archive(script(module="java.sql")), "lacks the module"),
        (archive(name="jdk-17.0.9+9/readme"), "does not look like it contains a JDK"),
    ],
    ids=["broken", "old", "trimmed", "no-java"],
)
def test_a_fetched_java_that_will_not_do_is_not_kept(machine, site, packed, reason):
    site.answers["/java.tar.gz"] = faultserver.content(packed)
    with pytest.raises(JavaError, match=f"- download: .*{reason}"):
        java.find_java()
    assert list((machine / "cache").iterdir()) == []


def test_a_machine_that_nobody_builds_java_for_is_told_so(site):
    other = index(site.url("/java.tar.gz"), vendor="zulu")
    site.answers["/index.json"] = faultserver.content(other)
    with pytest.raises(JavaError, match="No adoptium JDK is available for"):
        java.find_java()


def test_a_refused_connection_is_a_clear_error(machine, site, monkeypatch):
    monkeypatch.setenv("CJDK_INDEX_URL", "http://127.0.0.1:9/index.json")
    with pytest.raises(JavaError, match="Connection refused") as caught:
        java.find_java()
    assert all(command in str(caught.value) for command in COMMANDS)


def test_a_cached_java_that_broke_is_fetched_anew(machine, site):
    home = java.find_java()
    (home / "bin" / "java").unlink()
    assert java.find_java() == home
    assert (home / "bin" / "java").exists()
    assert [path.name for path in (machine / "cache").iterdir()] == ["java-17"]


def test_a_cache_that_cannot_be_written_is_named(machine, site, monkeypatch):
    (machine / "file").write_text("")
    monkeypatch.setenv("ALS_COURSE_CACHE", str(machine / "file" / "cache"))
    with pytest.raises(JavaError, match="download: cannot write in the cache"):
        java.find_java()


def test_the_command_prints_the_folder_or_the_error(machine, monkeypatch, capsys):
    assert java.main() == 1
    assert "sudo apt install" in capsys.readouterr().err
    monkeypatch.setenv("PATH", path_of(put_java(machine / "good")))
    assert java.main() == 0
    assert capsys.readouterr().out == f"Java for Spark: {machine / 'good'}\n"
