// CountedStore: an ObjectStore that counts what is asked of another one, by kind. Requests are
// money and time; status shows them.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "guildlite/object_store.h"

namespace guildlite {

struct RequestCounts {
  std::atomic<uint64_t> puts{0};
  std::atomic<uint64_t> gets{0};
  std::atomic<uint64_t> lists{0};
  std::atomic<uint64_t> deletes{0};
  std::atomic<uint64_t> bytes_sent{0};    // of every put that was tried
  std::atomic<uint64_t> bytes_stored{0};  // of those that were acknowledged
};

class CountedStore final : public ObjectStore {
 public:
  // `counts` is shared: a call that hangs may outlive whoever wanted to know.
  CountedStore(std::unique_ptr<ObjectStore> store, std::shared_ptr<RequestCounts> counts)
      : store_(std::move(store)), counts_(std::move(counts)) {}

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    counts_->puts.fetch_add(1);
    counts_->bytes_sent.fetch_add(bytes.size());
    auto put = store_->Put(key, bytes, condition);
    if (put.ok()) counts_->bytes_stored.fetch_add(bytes.size());
    return put;
  }
  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    counts_->gets.fetch_add(1);
    return store_->Get(key, range);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    counts_->lists.fetch_add(1);
    return store_->List(prefix, start_after, limit);
  }
  Status Delete(std::string_view key) override {
    counts_->deletes.fetch_add(1);
    return store_->Delete(key);
  }
  Status DeleteAll(std::span<const std::string> keys) override {
    counts_->deletes.fetch_add(1);
    return store_->DeleteAll(keys);
  }
  size_t gets_at_once() const override { return store_->gets_at_once(); }
  std::string Describe() const override { return store_->Describe(); }

 private:
  const std::unique_ptr<ObjectStore> store_;
  const std::shared_ptr<RequestCounts> counts_;
};

}  // namespace guildlite
