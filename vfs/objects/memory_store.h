// An ObjectStore in this process's memory: the reference the conformance suite was written against,
// and the bucket of tests and simulations. Each method is atomic; a version is the number of the
// put that made it, so that equal bytes put twice have two versions.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "guildlite/object_store.h"

namespace guildlite {

class MemoryStore : public ObjectStore {
 public:
  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override;
  Result<StoredObject> Get(std::string_view key,
                           std::optional<ByteRange> range = std::nullopt) override;
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override;
  Status Delete(std::string_view key) override;
  std::string Describe() const override { return "memory"; }

 private:
  struct Object {
    Bytes bytes;
    std::string version;
  };

  std::mutex mutex_;
  // Guarded by mutex_.
  std::map<std::string, Object, std::less<>> objects_;
  uint64_t last_version_ = 0;
};

}  // namespace guildlite
