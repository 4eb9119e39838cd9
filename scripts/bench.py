"""Runs by bench.sh: one table of what each workload costs on hushfs, on an in-memory FUSE filesystem, on a disk."""

import argparse
import mmap
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
KERNEL = "/usr/src/linux-source-6.1.tar.xz"


class Memory:
    """The ceiling: a FUSE filesystem that keeps everything in memory."""

    name = "memfs"

    def __init__(self, program, folder):
        self.program, self.mount_point = program, os.path.join(folder, "memfs")
        os.makedirs(self.mount_point)

    def mount(self):
        if os.path.ismount(self.mount_point):
            return
        self.daemon = subprocess.Popen([self.program, self.mount_point])
        wait_mounted(self.mount_point, self.daemon)

    def remount(self):
        """It has nothing but memory: only the page cache is dropped."""

    def forget(self):
        """Nor has it another place to take anything from; it stays mounted."""

    def clear(self):
        self.unmount()
        self.mount()

    def pid(self):
        return self.daemon.pid

    def unmount(self):
        subprocess.run(["umount", self.mount_point], check=True)
        self.daemon.wait()


class Hush:
    name = "hushfs"

    def __init__(self, program, folder):
        self.program = program
        self.folder = os.path.join(folder, "hushfs")
        self.mount_point = os.path.join(self.folder, "mnt")
        os.makedirs(self.mount_point)
        self.store = os.path.join(self.folder, "store")
        self.environment = dict(os.environ, HUSHFS_PASSWORD="bench", XDG_RUNTIME_DIR=self.folder)
        self.call("init", self.store)

    def call(self, *arguments):
        subprocess.run([self.program, *arguments], env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def mount(self):
        folders = ["--state-dir", self.folder + "/state", "--cache-dir", self.folder + "/cache"]
        command = [self.program, "mount", "-f", *folders, self.store, self.mount_point]
        log = open(self.folder + "/log", "a")
        self.daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        wait_mounted(self.mount_point, self.daemon)

    def remount(self):
        self.unmount()
        self.mount()

    def forget(self):
        """As on a new machine: nothing is left but the store."""
        self.unmount()
        shutil.rmtree(self.folder + "/state")
        shutil.rmtree(self.folder + "/cache")

    def clear(self):
        """A new volume: what is stored twice costs less."""
        self.forget()
        shutil.rmtree(self.store)
        self.call("init", self.store)
        self.mount()

    def derivation(self):
        """Seconds that the password takes: `key ls` does little else."""
        start = time.monotonic()
        self.call("key", "ls", self.store)
        return time.monotonic() - start

    def pid(self):
        return self.daemon.pid

    def unmount(self):
        self.call("umount", self.mount_point)
        self.daemon.wait()


class Disk:
    name = "disk"

    def __init__(self, folder):
        self.mount_point = os.path.join(folder, "disk")
        os.makedirs(self.mount_point)

    def mount(self):
        pass

    remount = forget = unmount = mount

    def clear(self):
        shutil.rmtree(self.mount_point)
        os.makedirs(self.mount_point)

    def pid(self):
        return None


def wait_mounted(path, daemon):
    for _ in range(6000):
        if os.path.ismount(path):
            return
        if daemon.poll() is not None:
            sys.exit(f"the daemon for {path} ended with {daemon.returncode}")
        time.sleep(0.01)
    sys.exit(f"{path} did not mount")


def daemon_cpu(pid):
    if pid is None:
        return 0.0
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        values = dict(line.split(":", 1) for line in status if line.startswith("Vm"))
    return int(values["VmRSS"].split()[0]) / 1024, int(values["VmHWM"].split()[0]) / 1024


def touch_memory():
    """On a virtual machine the first use of a page is the host's work, and counts as the time of whoever copies into
    it: many times what the copy costs. So what is about to be used was used a moment before, whoever is measured."""
    with open("/proc/meminfo") as meminfo:
        free = int(next(line for line in meminfo if line.startswith("MemFree:")).split()[1]) << 10
    with mmap.mmap(-1, min(free * 3 // 4, 6 << 30), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1


def measure(system, work):
    """(wall, CPU of client and daemon) in seconds; the daemon gets 100 ms to come to rest."""
    touch_memory()
    pid = system.pid()
    before, daemon_before = resource.getrusage(resource.RUSAGE_CHILDREN), daemon_cpu(pid)
    own_before, start = time.process_time(), time.monotonic()
    work(system.mount_point)
    wall = time.monotonic() - start
    own = time.process_time() - own_before
    time.sleep(0.1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, own + client + daemon_cpu(pid) - daemon_before


def run(*command):
    subprocess.run(command, check=True)


def drop_page_cache():
    subprocess.run(["sync"], check=True)
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3")


class Bench:
    def __init__(self, folder):
        self.random = os.path.join(folder, "random")
        self.tar = os.path.join(folder, "linux.tar")
        self.has_kernel = os.path.exists(KERNEL)

    def renew(self):
        """Bytes that no system has seen: what is stored already would not be stored again."""
        run("dd", "if=/dev/urandom", f"of={self.random}", "bs=1M", "count=1024", "status=none")

    def write(self, system):
        work = lambda mount: run("cp", self.random, mount + "/big")
        return measure(system, work)

    def settle(self, system):
        """Everything in the store, so that the next workload pays only for itself."""
        if isinstance(system, Hush):
            system.call("flush", system.mount_point)

    def read(self, system):
        self.settle(system)
        system.remount()
        drop_page_cache()
        return measure(system, lambda mount: read_all(mount + "/big"))

    def fetch(self, system):
        """As `read`, with nothing on this machine but the store."""
        self.settle(system)
        system.forget()
        system.mount()
        drop_page_cache()
        return measure(system, lambda mount: read_all(mount + "/big"))

    def create(self, system):
        def work(mount):
            os.makedirs(mount + "/small", exist_ok=True)
            for number in range(5000):
                with open(f"{mount}/small/{time.monotonic_ns()}-{number}", "wb") as file:
                    file.write(b"x" * 4096)

        return measure(system, work)

    def stat(self, system):
        if not os.path.exists(system.mount_point + "/small"):
            self.create(system)
        names = [f"{system.mount_point}/small/{name}" for name in os.listdir(system.mount_point + "/small")][:5000]
        for name in names:
            os.stat(name)

        def work(_mount):
            for _ in range(10):
                for name in names:
                    os.stat(name)

        return measure(system, work)

    def fsync(self, system):
        def work(mount):
            descriptor = os.open(mount + "/synced", os.O_CREAT | os.O_WRONLY)
            for number in range(1000):
                os.pwrite(descriptor, b"y" * 4096, number * 4096)
                os.fsync(descriptor)
            os.close(descriptor)

        return measure(system, work)

    def untar(self, system):
        if not os.path.exists(self.tar):
            with open(self.tar, "wb") as out:
                subprocess.run(["xz", "-dc", KERNEL], stdout=out, check=True)
        with open(self.tar, "rb") as warm:
            while warm.read(1 << 24):
                pass
        system.clear()
        target = system.mount_point + "/tree"
        os.makedirs(target)
        result = measure(system, lambda mount: run("tar", "-C", target, "-xf", self.tar))
        if isinstance(system, Hush):
            now, peak = resident_mib(system.pid())
            print(f"  hushfs resident after untar: {now:.0f} MiB, at most {peak:.0f} MiB", flush=True)
            self.settle(system)
            start = time.monotonic()
            system.forget()
            system.mount()
            os.stat(target + "/linux-source-6.1/Makefile")
            ready = time.monotonic() - start
            print(f"  a new state folder took {ready:.2f} s, of which {system.derivation():.2f} s for the password", flush=True)
            run("find", target, "-newermt", "1970-01-01", "-size", "+1000G")
            now, peak = resident_mib(system.pid())
            print(f"  hushfs resident, all of the tree walked: {now:.0f} MiB, at most {peak:.0f} MiB", flush=True)
        return result


def read_all(path):
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(1 << 20)
        while file.readinto(buffer):
            pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hushfs", required=True)
    parser.add_argument("--memfs", required=True)
    parser.add_argument("--costs", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="costs,write,read,fetch,create,stat,fsync,untar")
    options = parser.parse_args()
    names = options.only.split(",")
    if "costs" in names:
        names.remove("costs")
        subprocess.run([options.costs], check=True)
        print(flush=True)
    if names:
        compare(options, names)


def compare(options, names):
    folder = tempfile.mkdtemp(prefix="hushfs-bench.")
    systems = [Hush(options.hushfs, folder), Memory(options.memfs, folder), Disk(folder)]
    mounted = []
    try:
        bench = Bench(folder)
        for system in systems:
            system.mount()
            mounted.append(system)
        print(f"{'':8} {'hushfs':>18} {'memfs':>18} {'disk':>18}   {'hushfs/memfs':>14}  {'hushfs/disk':>14}")
        print(f"{'':8} {'wall s    CPU s':>18} {'wall s    CPU s':>18} {'wall s    CPU s':>18}   {'wall    CPU':>14}")
        for name in names:
            if name == "untar" and not bench.has_kernel:
                print(f"untar: {KERNEL} is missing (Debian's linux-source-6.1)")
                continue
            results = {system.name: [] for system in systems}
            for _ in range(options.rounds):
                if name == "write":
                    bench.renew()
                for system in systems:
                    results[system.name].append(getattr(bench, name)(system))
                    bench.settle(system)
            show(name, results)
    finally:
        for system in mounted:
            try:
                system.unmount()
            except subprocess.CalledProcessError:
                subprocess.run(["umount", "-l", system.mount_point])
        shutil.rmtree(folder, ignore_errors=True)


def show(name, results):
    middle = {system: [statistics.median(column) for column in zip(*rows)] for system, rows in results.items()}
    cells = " ".join(f"{middle[s][0]:9.3f}{middle[s][1]:9.3f}" for s in ("hushfs", "memfs", "disk"))
    ratio = lambda other, column: statistics.median(
        h[column] / max(o[column], 1e-6) for h, o in zip(results["hushfs"], results[other])
    )
    print(
        f"{name:8} {cells}   {ratio('memfs', 0):7.2f}{ratio('memfs', 1):7.2f}  {ratio('disk', 0):7.2f}{ratio('disk', 1):7.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
