# SPDX-License-Identifier: Apache-2.0
"""One QEMU process that runs Xen: booted and saved, or started from what was saved.

A machine is saved as two files: its memory, and the rest (a few hundred KiB of QEMU's migration
stream). What starts from them maps the memory privately: that takes a fifth of a second, and any
number may run at once."""

import json
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time

import packages

PROGRAM = "qemu-system-x86_64"
MEMORY_MIB = 2048
DOM0_MIB = 768
CHUNK = 1 << 18
DISK_BYTES = 2 << 20
# What dom0/init says on the serial port.
READY, ENDED = "real-xen: ready", "real-xen: ended "
# Without KVM: Xen cannot run on /dev/kvm of a machine that is itself a guest. smap crashes Dom0 under
# QEMU's interpreter, rdtscp and AVX a PVH guest.
CPU = "max,-smap,-rdtscp,-xsave,-avx,-avx2"
XEN_OPTIONS = (f"com1=115200,8n1 console=com1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=2 "
               "gnttab_max_frames=512 conring_size=4M loglvl=all bootscrub=0")
# No comma: it separates multiboot modules.
DOM0_OPTIONS = "console=hvc0 rdinit=/init quiet panic=-1"


class Machine:
    """Ends with its `with` block, at the latest."""

    def __init__(self, folder, log, script, saved=None, slow_disk=None, pvh=False):
        """folder: vmlinux, xen, dom0.cpio and saved machines. log: a file for the console of Xen and
        Dom0. script: text that Dom0 runs when it is told to. saved: the name under which a machine
        was saved, to start from it; without, Xen is booted. slow_disk: requests a second of an NVMe
        disk, if there is to be one. pvh: Dom0 is a PVH domain; QEMU cannot save such a machine."""
        self.folder, self.log, self.saved, self.slow_disk, self.pvh = folder, log, saved, slow_disk, pvh
        self.process = self.serial = self.control = None
        self.status = None
        self.ready = saved is not None  # Dom0 waits to be told to run the script
        self.received = b""
        self.run = tempfile.mkdtemp(prefix="real-xen-")  # sockets: their paths must be short
        with open(f"{self.run}/script", "w", encoding="utf-8") as file:
            file.write(script)

    def __enter__(self):
        if shutil.which(PROGRAM) is None:
            raise packages.Unavailable(f"{PROGRAM} is not installed (Debian: qemu-system-x86)")
        memory = (f"memory-backend-file,share=off,mem-path={self.folder}/{self.saved}.memory"
                  if self.saved else "memory-backend-memfd,share=on")
        board = ["-M", "pc,memory-backend=ram", "-smp", "2"]
        xen_options = XEN_OPTIONS
        if self.pvh:
            board = ["-M", "q35,memory-backend=ram", "-smp", "1", "-device", "amd-iommu,intremap=on"]
            xen_options += " dom0=pvh"
        command = [
            PROGRAM, *board, "-accel", "tcg,thread=multi,tb-size=512",
            "-cpu", CPU, "-m", str(MEMORY_MIB), "-nodefaults", "-no-reboot",
            "-display", "none", "-vga", "none",
            "-object", f"{memory},id=ram,size={MEMORY_MIB}M",
            "-chardev", f"file,id=console,path={self.log}", "-serial", "chardev:console",
            "-chardev", f"socket,id=scenario,path={self.run}/serial,server=on,wait=off",
            "-serial", "chardev:scenario",
            "-fw_cfg", f"name=opt/script,file={self.run}/script",
            "-qmp", f"unix:{self.run}/control,server=on,wait=off",
            "-kernel", f"{self.folder}/xen", "-append", xen_options,
            "-initrd", f"{self.folder}/vmlinux {DOM0_OPTIONS},{self.folder}/dom0.cpio",
        ]
        if self.slow_disk:
            with open(f"{self.run}/disk", "wb") as disk:
                disk.truncate(DISK_BYTES)
            command += ["-drive", f"if=none,id=slow,format=raw,cache=unsafe,file={self.run}/disk,"
                        f"throttling.iops-total={self.slow_disk}"]
            if not self.saved:
                command += ["-device", "nvme,drive=slow,serial=slow"]
        if self.saved:
            command += ["-incoming", "defer"]
        # ctest kills us at its timeout: QEMU ends with us then, too.
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command],
                                        stdin=subprocess.DEVNULL)
        self.control = self._connect("control").makefile("rw")
        self.control.readline()
        self._ask("qmp_capabilities")
        self.serial = self._connect("serial")
        self._ask("migrate-set-capabilities",
                  capabilities=[{"capability": "x-ignore-shared", "state": True}])
        if self.saved:
            self._ask("migrate-incoming", uri=f"exec:cat {self.folder}/{self.saved}.state")
            self._await_migration()
            self._ask("cont")
            if self.slow_disk:  # not earlier: QEMU saves no machine with an NVMe disk
                self._ask("device_add", driver="nvme", drive="slow", serial="slow")
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.run, ignore_errors=True)

    def save(self, name):
        """Saves the machine, which then goes on."""
        self._ask("stop")
        self._ask("migrate", uri=f"exec:cat > {self.folder}/{name}.state")
        self._await_migration()
        descriptors = f"/proc/{self.process.pid}/fd"
        memory = next(f"{descriptors}/{fd}" for fd in os.listdir(descriptors)
                      if os.readlink(f"{descriptors}/{fd}").startswith("/memfd:"))
        with open(memory, "rb") as source, open(f"{self.folder}/{name}.memory", "wb") as file:
            file.truncate(MEMORY_MIB << 20)
            zero = bytes(CHUNK)
            for offset in range(0, MEMORY_MIB << 20, CHUNK):
                chunk = source.read(CHUNK)
                if chunk != zero:
                    file.seek(offset)
                    file.write(chunk)
        self._ask("cont")

    def comes_up(self, seconds):
        """Whether Dom0's init is there by then, waiting to be told to run the script."""
        if not self.ready:
            self.ready = READY in self.lines(time.monotonic() + seconds)
        return self.ready

    def registers(self):
        """What each processor is at, looked at twice: whether it hangs in a loop or halted."""
        look = {"command-line": "info registers -a"}
        return "\n".join(self._ask("human-monitor-command", **look) for _ in range(2))

    def run_script(self, seconds):
        """Runs the script; yields its lines. After it `self.status` is its exit status, None when
        the time was over or QEMU ended."""
        deadline = time.monotonic() + seconds
        self.status = None
        self.comes_up(seconds)
        self.serial.sendall(b"go\n")
        self.ready, status = False, None
        for line in self.lines(deadline):
            if line.startswith(ENDED):
                status = int(line[len(ENDED):])
            elif line == READY and status is not None:
                self.ready, self.status = True, status
                return
            else:
                yield line

    def lines(self, deadline):
        """What Dom0 writes to its second serial port, line by line, until the time `deadline`
        (time.monotonic) or QEMU's end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.serial, selectors.EVENT_READ)
            while True:
                while b"\n" in self.received:
                    line, self.received = self.received.split(b"\n", 1)
                    yield line.decode(errors="replace").rstrip("\r")
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                if selector.select(left):
                    data = self.serial.recv(65536)
                    if not data:
                        return
                    self.received += data

    def _connect(self, name):
        connection = socket.socket(socket.AF_UNIX)
        for _ in range(500):
            try:
                connection.connect(f"{self.run}/{name}")
                return connection
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
        raise RuntimeError(f"{PROGRAM} does not listen on {name} (exit status {self.process.poll()})")

    def _ask(self, command, **arguments):
        self.control.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.control.flush()
        while True:
            line = self.control.readline()
            if not line:
                raise RuntimeError(f"{PROGRAM} ended while it was asked to {command}")
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{PROGRAM}: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def _await_migration(self):
        for _ in range(3000):
            status = self._ask("query-migrate").get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                break
            time.sleep(0.02)
        raise RuntimeError(f"{PROGRAM}: the machine was not saved or loaded: {status}")
