// A directory of the test's own, removed with all in it.
#pragma once

#include <string>

namespace guildlite {

class TempDir {
 public:
  enum class Where { kDisk, kMemory };
  // kMemory, if there is such a place: for tests that make thousands of files durable.
  explicit TempDir(Where where = Where::kDisk);
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace guildlite
