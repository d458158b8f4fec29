#include "tests/support/temp_dir.h"

#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <system_error>

namespace guildlite {

TempDir::TempDir() {
  std::error_code error;
  path_ = (std::filesystem::temp_directory_path(error) / "guildlite-test-XXXXXX").string();
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
