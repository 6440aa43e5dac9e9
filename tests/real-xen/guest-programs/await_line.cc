// SPDX-License-Identifier: Apache-2.0
// await-line FILE TEXT: until a whole line of the file contains the text. The file may come later.
#include <sys/inotify.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <string>

namespace {

bool HasLine(const std::string& path, const std::string& text) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line) && !file.eof();) {
    if (line.find(text) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "await-line FILE TEXT\n";
    return 2;
  }
  const std::string path = argv[1];
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  // Watched before the first look: what is written in between is an event.
  const int changes = inotify_init1(IN_CLOEXEC);
  if (inotify_add_watch(changes, folder.empty() ? "." : folder.c_str(), IN_CREATE | IN_MODIFY) <
      0) {
    std::cerr << "await-line: " << path << ": its folder is not to be watched\n";
    return 2;
  }
  while (!HasLine(path, argv[2])) {
    char events[4096];
    if (read(changes, events, sizeof events) < 0) return 2;
  }
  return 0;
}
