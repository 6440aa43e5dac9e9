#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each house rule notices its violation, at the right line, and nothing else."""

import os
import tempfile
import unittest

import house_rules

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"


class HouseRules(unittest.TestCase):
    def check(self, files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = os.path.join(root, name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
            return house_rules.check(root)

    def including(self, name, *headers):
        text = SPDX + "".join(
            f"#include {h}\n" if h.startswith("<") else f'#include "{h}"\n' for h in headers)
        return [(file, line) for file, line, _ in self.check({name: text})]

    def test_allowed_includes(self):
        for name, header in [
                ("virtio-msg/a.cc", "virtio-msg/b.h"), ("grants/a.cc", "absl/status/status.h"),
                ("backend/bus/a.cc", "virtio-msg/codec.h"),
                ("backend/service/a.cc", "xenstore/store.h"),
                ("backend/service/a.cc", "grants/platform.h"),
                ("backend/devices/blk/a.cc", "virtio-msg/virtio_blk.h"),
                ("backend/devices/blk/a.cc", "backend/virtqueue/split_queue.h"),
                ("backend/virtqueue/a.cc", "grants/window.h"),
                ("frontend-model/a.cc", "xenstore/store.h"), ("tools/x/a.cc", "backend/a.h"),
                ("tests/a.cc", "tests/b.h"), ("grants/native/a.cc", "<xengnttab.h>"),
                ("tools/xen-emu/a.cc", "grants/emulated/protocol.h")]:
            self.assertEqual(self.including(name, header), [], (name, header))

    def test_forbidden_includes(self):
        for name, header in [
                ("virtio-msg/a.cc", "grants/window.h"), ("grants/a.cc", "virtio-msg/codec.h"),
                ("grants/a.cc", "xenstore/store.h"), ("xenstore/a.cc", "grants/xen_types.h"),
                ("xenstore/a.cc", "backend/a.h"), ("backend/a.cc", "frontend-model/a.h"),
                ("frontend-model/a.cc", "backend/virtqueue/split_queue.h"),
                ("backend/bus/a.cc", "xenstore/store.h"),
                ("backend/session/a.cc", "grants/platform.h"),
                ("backend/devices/blk/a.cc", "virtio-msg/messages.h"),
                ("backend/devices/blk/a.cc", "virtio-msg/codec.h"),
                ("backend/devices/a.h", "grants/event_channels.h"),
                ("backend/devices/a.h", "backend/bus/bus_endpoint.h"),
                ("backend/virtqueue/a.cc", "virtio-msg/flex_ring.h"),
                ("backend/virtqueue/a.cc", "grants/grant_mapper.h"),
                ("tools/x/a.cc", "tests/a.h"), ("backend/a.h", "tests/a.h"),
                ("backend/a.cc", "b.h"), ("backend/a.cc", "../grants/window.h"),
                ("backend/service/a.cc", "grants/emulated/connection.h"),
                ("backend/service/a.cc", "<xengnttab.h>"), ("tools/x/a.cc", "<xenstore.h>")]:
            self.assertEqual(self.including(name, "virtio-msg/ok.h"
                                            if name.startswith("virtio") else "absl/ok.h", header),
                             [(name, 3)], (name, header))

    def test_indented_include_is_seen(self):
        found = self.check({"grants/a.cc": SPDX + '  #  include "backend/a.h"\n'})
        self.assertEqual([(f, n) for f, n, _ in found], [("grants/a.cc", 2)])

    def test_missing_licence(self):
        for name in ("grants/a.cc", "grants/a.h", "tools/a.py", "grants/CMakeLists.txt"):
            found = self.check({name: "\n"})
            self.assertEqual([(f, n) for f, n, _ in found], [(name, 1)])
        shell = "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n"
        self.assertEqual(self.check({"tools/a.sh": shell}), [])

    def test_kernel_module(self):
        kernel = "// SPDX-License-Identifier: GPL-2.0-only\n"
        header = "/* SPDX-License-Identifier: GPL-2.0-only */\n"
        self.assertEqual(self.check({
            "linux/a.c": kernel + '#include <linux/slab.h>\n#include <xen/page.h>\n#include "a.h"\n',
            "linux/a.h": header, "linux/Kbuild": "# SPDX-License-Identifier: GPL-2.0-only\n"}), [])
        for text in ('#include "virtio-msg/codec.h"\n', "#include <stdio.h>\n"):
            found = self.check({"linux/a.c": kernel + text})
            self.assertEqual([(f, n) for f, n, _ in found], [("linux/a.c", 2)])
        for name in ("linux/a.c", "linux/Kbuild"):
            found = self.check({name: SPDX})
            self.assertEqual([(f, n) for f, n, _ in found], [(name, 1)])
        found = self.check({"tools/a.cc": kernel, "tools/b.cc": SPDX + '#include "linux/a.h"\n'})
        self.assertEqual([(f, n) for f, n, _ in found], [("tools/a.cc", 1), ("tools/b.cc", 2)])

    def test_long_file(self):
        self.assertEqual(self.check({"grants/a.cc": SPDX + "\n" * 399}), [])
        found = self.check({"grants/a.cc": SPDX + "\n" * 400})
        self.assertEqual([(f, n) for f, n, _ in found], [("grants/a.cc", 401)])

    def test_full_folder(self):
        files = {f"grants/f{i:02}.cc": SPDX for i in range(12)}
        self.assertEqual(self.check({**files, "grants/CMakeLists.txt": "#" + SPDX[2:]}), [])
        found = self.check({**files, "grants/f12.cc": SPDX})
        self.assertEqual([(f, n) for f, n, _ in found], [("grants/f12.cc", 1)])

    def test_vague_names(self):
        for name in ("grants/util.h", "grants/map_helper.cc", "backend/bus-manager.h",
                     "tools/common/a.cc", "xenstore/misc.cc", "tests/string_utils.h"):
            found = self.check({name: SPDX})
            self.assertEqual([f for f, _, _ in found], [name])
        self.assertEqual(self.check({"grants/commonwealth.h": SPDX}), [])

    def test_program_without_the_common_frame(self):
        main = SPDX + "int main() { return 0; }\n"
        found = self.check({"tools/x/main.cc": main, "tests/x/main.cc": main})
        self.assertEqual([f for f, _, _ in found], ["tools/x/main.cc"])
        framed = SPDX + 'int main(int c, char** v) { return RunProgram("x", c, v, Main); }\n'
        self.assertEqual(self.check({"tools/x/main.cc": framed}), [])


if __name__ == "__main__":
    unittest.main()
