# SPDX-License-Identifier: Apache-2.0
"""Commands as a reader types them, run on an emulated Xen of their own in a temporary directory."""

import os
import re
import shutil
import signal
import subprocess
import tempfile

from blocks import command

SECONDS = 120  # only a failure meets it
# A reader's places are folders of the temporary directory.
PLACES = re.compile(r"(?<![\w/])/(srv|tmp|run|etc/xen)/")


class Emulation:
    """A context: /srv/g1.img, /srv/data.img, /etc/xen/g1.cfg and, where wanted, Xen, vmsgd and g1."""

    def __init__(self, root, programs, served):
        self.root, self.programs, self.served = root, programs, served
        self.background = []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="vmsg-shown.")
        self.log_path = os.path.join(self.directory, "log")
        with open(self.log_path, "w", encoding="utf-8"):
            pass
        for place in ["bin", "srv", "tmp", "run", "etc/xen"]:
            os.makedirs(os.path.join(self.directory, place))
        self.environment = dict(
            os.environ, LC_ALL="C",
            PATH=os.pathsep.join([os.path.join(self.directory, "bin"), self.programs,
                                  os.environ["PATH"]]))
        for image in ["g1.img", "data.img"]:
            with open(os.path.join(self.directory, "srv", image), "wb") as file:
                file.truncate(1 << 20)
        with open(os.path.join(self.root, "docs/examples/g1.cfg"), encoding="utf-8") as file:
            example = file.read()
        with open(os.path.join(self.directory, "etc/xen/g1.cfg"), "w", encoding="utf-8") as file:
            file.write(self.here(example))
        if self.served:
            for line in ["xen-emu serve --dir /tmp/xen &", "vmsgd --xen=emulated:/tmp/xen &",
                         "xen-emu create --dir /tmp/xen --name g1"]:
                self.run(line)
            # On a machine with Xen, vmsgctl needs no --xen.
            path = os.path.join(self.directory, "bin/vmsgctl")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f'#!/bin/sh\nexec {self.programs}/vmsgctl '
                           f'--xen=emulated:{self.directory}/tmp/xen "$@"\n')
            os.chmod(path, 0o755)
        return self

    def __exit__(self, *_):
        for process in reversed(self.background):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()
        shutil.rmtree(self.directory)

    def here(self, text):
        return PLACES.sub(lambda found: f"{self.directory}/{found.group(1)}/", text)

    def run(self, line):
        """Raises AssertionError with what it printed unless it ends with 0, or says that it is ready."""
        line = self.here(command(line))
        arguments = dict(shell=True, executable="/bin/bash", cwd=self.directory, text=True,
                         errors="replace",
                         env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if line.endswith("&"):
            with open(self.log_path, "a", encoding="utf-8") as log:
                process = subprocess.Popen("exec " + line[:-1], stderr=log, start_new_session=True,
                                           **arguments)
            self.background.append(process)
            first = process.stdout.readline().strip()
            if first != "ready":
                raise AssertionError(f"{line}: said '{first}' instead of 'ready'\n{self.log()}")
            return
        done = subprocess.run(line, stderr=subprocess.STDOUT, timeout=SECONDS, check=False,
                              **arguments)
        if done.returncode != 0:
            raise AssertionError(f"{line}: status {done.returncode}\n{done.stdout}\n{self.log()}")

    def log(self):
        """What the programs in the background said."""
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()
