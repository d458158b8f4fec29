// ObjectStore: the one door to where objects are kept (a bucket, a directory, memory).
//
// It mirrors the S3 object API, not a file system: whole-object put, ranged get, list, delete; no
// handles, no append, no rename. All coordination rests on the two conditional puts, so an
// implementation that cannot make them atomic must say so by failing the store probe.
//
// Keys are relative to the store's prefix: non-empty, segments of [A-Za-z0-9._-] joined by '/', no
// segment "." or "..". Thread-safe: any method from any thread.
//
// Errors: kNotFound (get, delete of a missing key is Ok), kAlreadyExists (Put kCreate lost),
// kPrecondition (Put kMatch lost), kStoreUnreachable and kStoreThrottled (retryable),
// kStoreDenied, kNoBucket, kDiskFull, kOutcomeUnknown (the put may or may not have happened).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "guildlite/status.h"

namespace guildlite {

using Bytes = std::string;  // raw bytes; std::string because every library takes it
using ByteView = std::span<const std::byte>;

struct PutCondition {
  enum class Kind { kCreate, kMatch, kOverwrite } kind = Kind::kOverwrite;
  std::string version;  // kMatch only
  // S3 If-None-Match: * (docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html)
  static PutCondition Create() { return {Kind::kCreate, {}}; }
  // S3 If-Match: "etag"
  static PutCondition Match(std::string v) { return {Kind::kMatch, std::move(v)}; }
  static PutCondition Overwrite() { return {Kind::kOverwrite, {}}; }
};

struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;  // short reads at the end of the object are not an error
};

struct StoredObject {
  Bytes bytes;          // the range asked for, or all
  uint64_t size = 0;    // of the whole object
  std::string version;  // for PutCondition::Match; opaque
};

struct ListEntry {
  std::string key;
  uint64_t size = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;
  // Returns the new version.
  virtual Result<std::string> Put(std::string_view key, std::string_view bytes,
                                  const PutCondition& condition) = 0;
  virtual Result<StoredObject> Get(std::string_view key,
                                   std::optional<ByteRange> range = std::nullopt) = 0;
  // Keys that start with `prefix` and are greater than `start_after`, ascending by byte, at most
  // `limit`. Repair and sweep only: nothing in the steady state lists.
  virtual Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                              size_t limit) = 0;
  virtual Status Delete(std::string_view key) = 0;
  // Ok when all are gone. A store that has one request for many keys overrides it.
  virtual Status DeleteAll(std::span<const std::string> keys) {
    for (const std::string& key : keys) {
      if (Status s = Delete(key); !s.ok()) return s;
    }
    return Status::Ok();
  }
  // How many Gets at a time a reader of many objects should have under way: 1 where an answer takes
  // no time to speak of.
  virtual size_t gets_at_once() const { return 1; }
  // The url without secrets, for messages.
  virtual std::string Describe() const = 0;
};

}  // namespace guildlite
