# SPDX-License-Identifier: Apache-2.0
"""The initramfs of a guest whose root file system is a disk of ours: made by Debian's
initramfs-tools, with the hook and script of packaging/dkms, as an installation of the package has
them."""

import os
import shutil
import subprocess

import packages

HERE = os.path.dirname(os.path.abspath(__file__))
DKMS = os.path.join(os.path.dirname(os.path.dirname(HERE)), "packaging/dkms")
# What the package installs: the file here, its place there.
INSTALLED = {
    "initramfs-hook": "usr/share/initramfs-tools/hooks/virtio-msg-xen",
    "initramfs-wait": "usr/share/initramfs-tools/scripts/local-top/virtio-msg-xen",
}
# "list": what no hook asks for is not there. RESUME: there is no swap.
SETTINGS = "MODULES=list\nBUSYBOX=y\nCOMPRESS=gzip\nRESUME=none\n"


def sources():
    return [f"{DKMS}/{name}" for name in INSTALLED]


def build(folder, release, module):
    """The path of the initramfs for the kernel `release`, whose own modules are below
    `folder`/root, with our module."""
    tree = f"{folder}/initramfs-tools"
    for source, place in INSTALLED.items():
        os.makedirs(os.path.dirname(f"{tree}/{place}"), exist_ok=True)
        shutil.copy(f"{DKMS}/{source}", f"{tree}/{place}")
    for name in ("boot", "var/tmp", "lib/modules", "etc/initramfs-tools/conf.d", "dev"):
        os.makedirs(f"{tree}/{name}", exist_ok=True)
    with open(f"{tree}/etc/initramfs-tools/conf.d/rig", "w", encoding="utf-8") as file:
        file.write(SETTINGS)
    with open(f"{tree}/etc/initramfs-tools/modules", "w", encoding="utf-8") as file:
        file.write("ext4\n")
    shutil.copy(f"{folder}/root/boot/config-{release}", f"{tree}/boot")
    modules = f"{tree}/lib/modules/{release}"
    if not os.path.exists(modules):
        shutil.copytree(f"{folder}/root/lib/modules/{release}", modules, copy_function=os.link)
    os.makedirs(f"{modules}/updates/dkms", exist_ok=True)
    shutil.copy(module, f"{modules}/updates/dkms/virtio_msg_xen.ko")
    _inside(tree, "depmod", release)
    _inside(tree, "mkinitramfs", "-o", "/boot/initramfs", release)
    return f"{tree}/boot/initramfs"


def _inside(tree, *command):
    user = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    ran = subprocess.run([*user, "chroot", tree, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin", *command],
                         stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT)
    if ran.returncode != 0 or "W: virtio-msg-xen" in ran.stdout:
        raise RuntimeError(f"{' '.join(command)} in {tree}:\n{ran.stdout[-4000:]}")
