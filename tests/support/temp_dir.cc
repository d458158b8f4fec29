#include "tests/support/temp_dir.h"

#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <system_error>

namespace guildlite {

TempDir::TempDir(Where where) {
  std::error_code error;
  const bool memory = where == Where::kMemory && ::access("/dev/shm", W_OK) == 0;
  const auto parent =
      memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path(error);
  path_ = (parent / "guildlite-test-XXXXXX").string();
  if (!::mkdtemp(path_.data())) {
    std::perror(path_.c_str());
    std::abort();
  }
}

TempDir::~TempDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

}  // namespace guildlite
