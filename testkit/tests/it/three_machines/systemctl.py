#!/usr/bin/python3
"""Stands in for systemctl and journalctl on a machine of the test, which has no init: it runs what the
installed unit says, as its user, with its capabilities, its folders and a NOTIFY_SOCKET, and writes
down what comes there. It has no sandbox (ProtectSystem= and its like), no watchdog and no Restart=."""

import os
import pwd
import resource
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time

STATE = "/run/systemd/stand-in"
FOLDERS = {"StateDirectory": "/var/lib", "RuntimeDirectory": "/run", "LogsDirectory": "/var/log"}


def seconds(text):
    return float(text.removesuffix("s"))


class Unit:
    def __init__(self, name):
        self.name = name.removesuffix(".service")
        masked = f"/etc/systemd/system/{self.name}.service"
        if os.path.realpath(masked) == "/dev/null":
            sys.exit(f"Unit {self.name}.service is masked.")
        self.fields = {}
        with open(f"/usr/lib/systemd/system/{self.name}.service") as file:
            for line in map(str.strip, file):
                if line and not line.startswith(("#", "[")):
                    key, value = line.split("=", 1)
                    self.fields.setdefault(key, []).append(value)

    def field(self, key, default=""):
        return self.fields.get(key, [default])[-1]

    def path(self, kind):
        return f"{STATE}/{self.name}.{kind}"

    def read(self, kind):
        try:
            with open(self.path(kind)) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def write(self, kind, text, mode="w"):
        with open(self.path(kind), mode) as file:
            file.write(text)

    def pid(self):
        pid = int(self.read("pid") or 0)
        return pid if pid and os.path.exists(f"/proc/{pid}") else None

    def start(self):
        if self.pid():
            return
        for path in self.fields.get("ConditionPathExists", []):
            if not os.path.exists(path):
                return  # as with systemd, that is no failure
        if self.field("Type") != "notify":
            sys.exit(f"{self.name}: only Type=notify is known here")
        self.write("state", "activating")
        supervisor = os.fork()
        if supervisor == 0:
            os.setsid()
            if os.fork() == 0:
                self.supervise()
            os._exit(0)
        os.waitpid(supervisor, 0)
        until(lambda: self.read("state") != "activating", seconds(self.field("TimeoutStartSec")))
        if self.read("state") != "active":
            sys.exit(f"Job for {self.name}.service failed.")

    def supervise(self):
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = self.path("socket")
        if os.path.exists(address):
            os.unlink(address)
        notify.bind(address)
        os.chmod(address, stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
        notify.settimeout(0.1)
        process = self.spawn(address)
        self.write("pid", str(process.pid))
        while process.poll() is None:
            try:
                told = notify.recv(4096).decode()
            except TimeoutError:
                continue
            self.write("notify", told + "\n", "a")
            if told == "READY=1":
                self.write("state", "active")
            if told.startswith("STATUS="):
                self.write("status", told.removeprefix("STATUS="))
        self.write("notify", f"EXIT={process.returncode}\n", "a")
        self.write("state", "inactive" if process.returncode == 0 else "failed")

    def spawn(self, address):
        user = pwd.getpwnam(self.field("User"))
        for key, parent in FOLDERS.items():
            for name in self.field(key).split():
                folder = f"{parent}/{name}"
                os.makedirs(folder, exist_ok=True)
                os.chown(folder, user.pw_uid, user.pw_gid)
                os.chmod(folder, int(self.field(f"{key}Mode", "0755"), 8))
        log = open(self.path("log"), "a")
        journal = os.fstat(log.fileno())
        environment = {
            "PATH": "/usr/bin:/bin",
            "NOTIFY_SOCKET": address,
            "WATCHDOG_USEC": str(int(seconds(self.field("WatchdogSec")) * 1e6)),
            "JOURNAL_STREAM": f"{journal.st_dev}:{journal.st_ino}",
        }
        with open(self.field("EnvironmentFile").removeprefix("-")) as file:
            lines = [line.strip() for line in file if not line.startswith("#")]
            environment.update(line.split("=", 1) for line in lines if line)
        capabilities = [f"+{name.removeprefix('CAP_').lower()}" for name in self.field("AmbientCapabilities").split()]
        sets = ",".join(["-all", *capabilities])
        command = [
            # The process id stays the same up to the daemon.
            *("sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh"),
            *("setpriv", f"--reuid={user.pw_name}", f"--regid={user.pw_name}", "--init-groups", "--no-new-privs"),
            *(f"--inh-caps={sets}", f"--ambient-caps={sets}", f"--bounding-set={sets}"),
            *shlex.split(self.field("ExecStart")),
        ]
        os.umask(int(self.field("UMask"), 8))
        # As many as a container lets us have.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(int(self.field("LimitNOFILE")), most), most))
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
        )

    def stop(self):
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        until(lambda: self.read("state") in ("inactive", "failed"), seconds(self.field("TimeoutStopSec")))
        if self.field("RuntimeDirectory"):
            subprocess.run(["rm", "-rf", f"/run/{self.field('RuntimeDirectory')}"], check=True)

    def reload(self):
        command = self.field("ExecReload").replace("$MAINPID", str(self.pid()))
        subprocess.run(shlex.split(command), check=True)

    def show(self):
        print(f"{self.name}.service: {self.read('state') or 'inactive'}, Status: \"{self.read('status')}\"")


def until(condition, limit):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("timed out")
        time.sleep(0.05)


def main():
    os.makedirs(STATE, mode=0o755, exist_ok=True)
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    if os.path.basename(sys.argv[0]) == "journalctl":
        print(Unit(words[0]).read("log"), end="")
        return
    with open(f"{STATE}/calls", "a") as file:
        file.write(" ".join(words) + "\n")
    verb, names = words[0], words[1:]
    if verb == "preset":
        os.execv("/usr/bin/systemctl.real", ["systemctl", "--root=/", *sys.argv[1:]])
    verbs = {
        "start": lambda unit: unit.start(),
        "stop": lambda unit: unit.stop(),
        "restart": lambda unit: (unit.stop(), unit.start()),
        "reload": lambda unit: unit.reload(),
        "status": lambda unit: unit.show(),
        "is-enabled": lambda unit: print("enabled"),
        "is-active": lambda unit: None if unit.pid() else sys.exit(3),
        "daemon-reload": None,
    }
    for name in names:
        verbs[verb](Unit(name))
    if not names and verb != "daemon-reload":
        sys.exit(f"{verb} wants a unit")


main()
