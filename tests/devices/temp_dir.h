// SPDX-License-Identifier: Apache-2.0
// A directory for one test, removed with all that is in it.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace vmsg::testing {

class TempDir {
 public:
  TempDir() {
    std::string name = std::filesystem::temp_directory_path() / "vmsg-devices-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // A file of `bytes` bytes that say where they are.
  std::string File(const std::string& name, size_t bytes) const {
    std::string content(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) content[i] = static_cast<char>(i / 512 * 7 + i % 251);
    std::ofstream(*this / name, std::ios::binary) << content;
    return *this / name;
  }
  static std::string Content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }

 private:
  std::string path_;
};

}  // namespace vmsg::testing
