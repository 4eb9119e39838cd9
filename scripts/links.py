#!/usr/bin/env python3
"""Measures links of very many files and of very many bytes, and that each step goes on after kill -9.

  cargo build --release && python3 scripts/links.py [--files 100000] [--gigabytes 4] [--hushfs target/release/hushfs]

Makes a volume in a local store below --work, mounts it, fills a folder, and then: `share create` whose daemon is killed
in the middle, again after a new mount; `get` from the bucket, killed and again; `get` through a gateway, with its
requests; `import`, killed and again. What arrives is compared. Prints seconds and peaks of resident memory. Takes about
six times the bytes on the disk, and some minutes.
"""

import argparse
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

PASSWORD = "measured"
FOLDERS = 100
LARGE_LEN = 256 << 20


class Run:
    """A command, to its end or until `until` says so; then it is killed."""

    def __init__(self, command, env, until=None):
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.was_killed = False
        # Not by poll, which would take what wait4 is to tell.
        while until and not os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if until():
                self.was_killed = True
                self.process.kill()
                break
            time.sleep(0.02)
        self.out, self.error = self.process.stdout.read().decode(), self.process.stderr.read().decode()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.seconds = time.monotonic() - self.started
        self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
        self.peak = usage.ru_maxrss * 1024

    def succeed(self):
        if self.status != 0:
            sys.exit(f"{self.process.args} failed:\n{self.error}")
        return self


class Machine:
    def __init__(self, hushfs, work):
        self.hushfs, self.work = hushfs, work
        self.store, self.mountpoint = work / "store", work / "mnt"
        self.mountpoint.mkdir()
        self.env = os.environ | {"HUSHFS_PASSWORD": PASSWORD, "XDG_RUNTIME_DIR": str(work)}
        self.env |= {"XDG_STATE_HOME": str(work / "xdg")}
        self.daemon = None
        self.run("init", self.store, "--kdf-memory", "64MiB").succeed()

    def run(self, *arguments, until=None):
        return Run([self.hushfs, *map(str, arguments)], self.env, until)

    def mount(self):
        folders = ["--state-dir", self.work / "state", "--cache-dir", self.work / "cache"]
        command = [self.hushfs, "mount", self.store, self.mountpoint, "-f", *folders]
        log = open(self.work / "daemon.log", "ab")
        self.daemon = subprocess.Popen(list(map(str, command)), env=self.env, stdout=log, stderr=log)
        while self.run("status", self.mountpoint).status != 0:
            if self.daemon.poll() is not None:
                sys.exit(f"the drive did not mount; see {self.work}/daemon.log")
            time.sleep(0.05)

    def kill(self):
        self.daemon.kill()
        self.daemon.wait()
        subprocess.run(["umount", "-l", self.mountpoint], check=False)

    def reset_peak(self):
        pathlib.Path(f"/proc/{self.daemon.pid}/clear_refs").write_text("5")

    def peak(self):
        status = pathlib.Path(f"/proc/{self.daemon.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10

    def packs(self):
        return [path for path in self.store.glob("share/*/pk/*") if "#" not in path.name]

    def end(self):
        if self.daemon and self.daemon.poll() is None:
            self.kill()


def mib(size):
    return f"{size / (1 << 20):,.0f} MiB"


def say(step, run, daemon=None, more=""):
    peaks = f"command {mib(run.peak):>9}" + (f"   daemon {mib(daemon):>9}" if daemon else "")
    print(f"{step:<34} {run.seconds:8.1f} s   {peaks}   {more}", flush=True)


def fill(folder, files, large_bytes):
    generator = random.Random(1)
    for number in range(files):
        if number % (files // FOLDERS or 1) == 0:
            (at := folder / f"folder {number:06}").mkdir(parents=True)
        with open(at / f"file {number:06}", "wb") as file:
            file.write(generator.randbytes(generator.randrange(100, 3000)))
    for number in range(large_bytes // LARGE_LEN):
        with open(folder / f"large {number}", "wb") as file:
            for _ in range(LARGE_LEN >> 20):
                file.write(generator.randbytes(1 << 20))


def same(one, other):
    subprocess.run(["diff", "-rq", one, other], check=True)


def growing(folder, enough):
    """Whether half of it has come; looked at now and then, as looking takes long itself."""
    last = [time.monotonic()]

    def is_enough():
        if time.monotonic() < last[0] + 0.5:
            return False
        parts = list(folder.glob(".hushfs-*.part"))
        last[0] = time.monotonic()
        return bool(parts) and used(parts[0]) >= enough

    return is_enough


def used(folder):
    return int(subprocess.run(["du", "-s", "-B1", folder], stdout=subprocess.PIPE).stdout.split()[0])


def metrics(address):
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        return answer.read().decode()


def measure(machine, files, large_bytes):
    machine.mount()
    folder = machine.mountpoint / "many"
    started = time.monotonic()
    fill(folder, files, large_bytes)
    machine.run("flush", machine.mountpoint).succeed()
    total = files * 1550 + large_bytes
    print(f"{files:,} files and {mib(large_bytes)} filled in {time.monotonic() - started:.0f} s", flush=True)

    enough = max(large_bytes // 2 // (16 << 20), 1)
    creating = subprocess.Popen(
        [machine.hushfs, "share", "create", folder], env=machine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while len(machine.packs()) < enough and creating.poll() is None:
        time.sleep(0.05)
    machine.kill()
    print(f"share create: the daemon was killed at {len(machine.packs())} packs", flush=True)
    creating.communicate()
    machine.mount()
    machine.reset_peak()
    before = set(machine.packs())
    run = machine.run("share", "create", folder).succeed()
    link = run.out.strip()
    kept = len(before & set(machine.packs()))
    say("share create, gone on with", run, machine.peak(), f"{kept} packs kept, {len(machine.packs()) - kept} made")
    machine.reset_peak()
    run = machine.run("share", "create", folder, "--name", "again").succeed()
    again = run.out.strip()
    say("share create, anew", run, machine.peak())

    fetched = machine.work / "fetched"
    fetched.mkdir()
    by_store = ["get", link, "--store", machine.store, "-o", fetched]
    run = machine.run(*by_store, until=growing(fetched, total // 2))
    say("get from the bucket, killed", run, more="" if run.was_killed else "(it ended before)")
    if run.was_killed:
        run = machine.run(*by_store).succeed()
        say("get from the bucket, gone on with", run)
    same(folder, fetched / "many")
    shutil.rmtree(fetched)

    command = [machine.hushfs, "gateway", machine.store, "--listen", "127.0.0.1:0", "--address-requests", "1000000"]
    log = open(machine.work / "gateway.log", "wb")
    gateway = subprocess.Popen(list(map(str, command)), env=machine.env, stdout=subprocess.PIPE, stderr=log)
    try:
        address = gateway.stdout.readline().decode().split()[-1]
        fetched.mkdir()
        run = machine.run("get", f"{address}/s/{again}", "-o", fetched).succeed()
        told = metrics(address)
        counts = {line.split()[0]: line.split()[1] for line in told.splitlines() if line and line[0] != "#"}
        say("get from a gateway", run)
        for name in sorted(counts):
            if re.search("request|byte|read", name):
                print(f"    {name} {counts[name]}")
    finally:
        gateway.kill()
        gateway.wait()
    same(folder, fetched / "again")
    shutil.rmtree(fetched)

    target = machine.mountpoint / "imported"
    target.mkdir()
    importing = ["import", link, target, "--store", machine.store]
    run = machine.run(*importing, until=growing(target, total // 2))
    say("import, killed", run, machine.peak(), "" if run.was_killed else "(it ended before)")
    if run.was_killed:
        machine.reset_peak()
        run = machine.run(*importing).succeed()
        say("import, gone on with", run, machine.peak())
    same(folder, target / "many")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--hushfs", default="target/release/hushfs")
    parser.add_argument("--work", help="a folder on a disk with room (default: a temporary one)")
    arguments = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="hushfs-links-", dir=arguments.work))
    machine = Machine(os.path.abspath(arguments.hushfs), work)
    try:
        measure(machine, arguments.files, int(arguments.gigabytes * (1 << 30)))
    finally:
        machine.end()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
