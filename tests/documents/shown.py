# SPDX-License-Identifier: Apache-2.0
"""Every block that the documents show, by document and first line: what becomes of its commands.

Run(...)     each line runs on the emulated Xen, in order, and ends with status 0
NotRun(why)  commands that are not run here, and why not
Text(what)   no commands
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Run:
    # What the reader has when he comes to this block: a Xen with vmsgd, guest g1, /srv's images
    # and /etc/xen/g1.cfg. A block without it starts them itself.
    served: bool = True
    # Line: what is done before it, because the lines before are the reader's other choices.
    before: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class NotRun:
    why: str


@dataclasses.dataclass(frozen=True)
class Text:
    what: str


DATA_DISK = "vmsgctl attach g1 type=blk,path=/srv/data.img,num=3"

SHOWN = {
    "README.md": {
        "tools/demo": NotRun("it is a test of its own (CI), and runs for as long as all of these"),
        "== Result": Text("what tools/demo prints"),
        "apt-get install ./virtio-msg-xen_*.deb": NotRun("`packages` does it in a minimal Debian"),
        "apt-get install linux-headers-amd64 ./virtio-msg-xen-dkms_*.deb": NotRun(
            "tests/packaging/dkms does it in a minimal Debian"),
    },
    "CONTRIBUTING.md": {
        "tools/demo": NotRun("as in README.md; tools/lint takes long for the whole tree"),
    },
    "docs/guest-linux.md": {
        "apt-get install linux-headers-amd64 ./virtio-msg-xen-dkms_*.deb": NotRun(
            "tests/packaging/dkms does it in a minimal Debian"),
        "make -C /lib/modules/$(uname -r)/build M=$PWD/linux modules": NotRun(
            "tests/real-xen builds the module, for the kernels of its guests"),
        "# lsblk": Text("what is seen in a guest: kernel/root of tests/real-xen"),
        'kernel  = "/srv/g1/vmlinuz"': Text("lines of an xl config, as kernel/root of tests/real-xen has them"),
        "mokutil --import /var/lib/dkms/mok.pub": NotRun("needs a machine with secure boot"),
    },
    "docs/operations.md": {
        "cmake --preset release && cmake --build build/release":
            NotRun("is what built this; `packages` makes, installs and tries the packages"),
        "systemctl status vmsgd": NotRun("needs systemd as process 1; `systemd_unit` checks the unit"),
        'virtio_msg = [ "type=blk,path=/srv/g1.img", "type=rng", "type=console,pty=/run/g1-console" ]':
            Text("a line of an xl config"),
        "DOMAIN  CONFIG           STATUS": Text("what vmsgctl list prints"),
        DATA_DISK: Run(before={
            "vmsgctl detach g1 3 --force": DATA_DISK,
            "vmsgctl detach g1 all": "vmsgctl attach g1 type=rng,num=5",
        }),
        'disk = [ "vdev=xvdb,format=raw,backendtype=standalone,specification=virtio,access=rw,'
        'target=/srv/x.img" ]': Text("a line of an xl config"),
        "journalctl -k -g 'type=1326.*vmsgd'": NotRun("the kernel's log is another machine's here"),
        "vmsgd 0.1.0: serving on native with 3 I/O threads": Text("lines of vmsgd's log"),
        "guest 3 bus 0 device 0: write of 4096 bytes at 1048576: No space left on device (ENOSPC); "
        "17 I/O errors since it was attached": Text("a line of vmsgd's log"),
        "disk requests are copied (bounce)": Text("a line of vmsgd's log"),
        "xl restore -p g1.save": NotRun("needs a real Xen"),
        "systemctl reload vmsgd": NotRun("needs systemd as process 1"),
        "xen-emu serve --dir /tmp/xen &": Run(served=False),
    },
    "docs/performance.md": {
        "tests/real-xen/run --scenarios tests/benchmarks/xen --show kernel":
            NotRun("needs the rig, and takes as long as a benchmark"),
        "tests/real-xen/run --scenarios tests/benchmarks/xen --show bounce":
            NotRun("needs the rig, and takes as long as a benchmark"),
        "tools/bench real-xen": NotRun("boots a machine and measures for minutes"),
        "tools/bench": NotRun("measures for minutes, and needs the processors for itself"),
    },
    "docs/testing.md": {
        "tests/real-xen/run --list": NotRun("ctest's real-xen tests are these commands"),
        "# SPDX-License-Identifier: Apache-2.0": Text("a scenario; tests/real-xen runs its like"),
    },
    "docs/man/vmsgctl.8": {
        "vmsgctl attach g1 type=blk,path=/srv/g1.img": Run(),
        "vmsgctl detach g1 0": Run(
            before={"vmsgctl detach g1 0": "vmsgctl attach g1 type=blk,path=/srv/g1.img"}),
    },
}
