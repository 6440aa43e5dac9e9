// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/blk/opening/image_format.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace vmsg::backend {
namespace {

using namespace std::string_view_literals;

// Of each end as much is looked at.
constexpr size_t kEndBytes = 512;

// A guest can write such a header to its raw disk, with any file of this domain as its backing
// file: who then converts it gives the guest that file.
constexpr char kConvert[] =
    "qemu-img convert -O raw makes a raw image of it; not of one that a guest has ever written to, "
    "which may name any file here as its backing file and would become that";
constexpr char kUnpack[] = "unpack it first";
constexpr char kDecrypt[] =
    "cryptsetup open gives a device to attach; with format=raw the guest gets the encrypted disk";

struct Magic {
  ImageFormat format;
  std::string_view bytes;
  size_t offset = 0;
  bool at_end = false;  // the offset is into the last kEndBytes
};

constexpr Magic kMagics[] = {{{"a qcow or qcow2 image", kConvert}, "QFI\xfb"sv},
                             {{"a QED image", kConvert}, "QED\0"sv},
                             {{"a VMDK image", kConvert}, "KDMV"sv},
                             {{"a VMDK image", kConvert}, "COWD"sv},
                             {{"a VMDK image's description", kConvert}, "# Disk DescriptorFile"sv},
                             {{"a VHD image", kConvert}, "conectix"sv},
                             {{"a VHD image", kConvert}, "conectix"sv, 0, true},
                             // The footer of old ones has 511 bytes.
                             {{"a VHD image", kConvert}, "conectix"sv, 1, true},
                             {{"a VHDX image", kConvert}, "vhdxfile"sv},
                             {{"a VDI image", kConvert}, "\x7f\x10\xda\xbe"sv, 0x40},
                             {{"a Parallels image", kConvert}, "WithoutFreeSpace"sv},
                             {{"a Parallels image", kConvert}, "WithouFreSpacExt"sv},
                             {{"a Bochs image", kConvert}, "Bochs Virtual HD Image"sv},
                             {{"a DMG image", kConvert}, "koly"sv, 0, true},
                             {{"a LUKS container", kDecrypt}, "LUKS\xba\xbe"sv},
                             {{"compressed by gzip", kUnpack}, "\x1f\x8b\x08"sv},
                             {{"compressed by xz", kUnpack},
                              "\xfd"
                              "7zXZ\0"sv},
                             {{"compressed by zstd", kUnpack}, "\x28\xb5\x2f\xfd"sv},
                             {{"compressed by bzip2", kUnpack}, "BZh"sv}};

}  // namespace

absl::StatusOr<const ImageFormat*> RecognizeFormat(const UniqueFd& fd, uint64_t bytes) {
  char ends[2][kEndBytes] = {};
  size_t there[2] = {};
  const uint64_t last = bytes > kEndBytes ? bytes - kEndBytes : 0;
  for (int end = 0; end < 2; ++end) {
    const ssize_t got =
        pread(fd.get(), ends[end], kEndBytes, static_cast<off_t>(end == 0 ? 0 : last));
    if (got < 0) {
      return absl::InvalidArgumentError(absl::StrCat("cannot be read: ", std::strerror(errno)));
    }
    there[end] = static_cast<size_t>(got);
  }
  for (const Magic& magic : kMagics) {
    const int end = magic.at_end ? 1 : 0;
    if (magic.offset + magic.bytes.size() > there[end]) continue;
    if (std::memcmp(ends[end] + magic.offset, magic.bytes.data(), magic.bytes.size()) == 0) {
      return &magic.format;
    }
  }
  return nullptr;
}

}  // namespace vmsg::backend
