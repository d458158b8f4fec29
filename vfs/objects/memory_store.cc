#include "vfs/objects/memory_store.h"

#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

Status CheckKey(std::string_view key) {
  if (IsValidKey(key)) return Status::Ok();
  return Status(Tag::kBadArgument, "object key '" + std::string(key) + "' is malformed");
}

}  // namespace

Result<std::string> MemoryStore::Put(std::string_view key, std::string_view bytes,
                                     const PutCondition& condition) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(key);
  if (condition.kind == PutCondition::Kind::kCreate && it != objects_.end()) {
    return Status(Tag::kAlreadyExists, "put " + std::string(key) + ": it exists");
  }
  if (condition.kind == PutCondition::Kind::kMatch &&
      (it == objects_.end() || it->second.version != condition.version)) {
    return Status(Tag::kPrecondition, "put " + std::string(key) + ": it changed meanwhile");
  }
  Object& object = it != objects_.end() ? it->second : objects_[std::string(key)];
  object.bytes = bytes;
  object.version = std::to_string(++last_version_);
  return object.version;
}

Result<StoredObject> MemoryStore::Get(std::string_view key, std::optional<ByteRange> range) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(key);
  if (it == objects_.end()) {
    return Status(Tag::kNotFound, "get " + std::string(key) + ": no such object");
  }
  const Object& object = it->second;
  StoredObject result;
  result.size = object.bytes.size();
  result.version = object.version;
  if (!range) {
    result.bytes = object.bytes;
  } else if (range->offset < object.bytes.size()) {
    result.bytes = object.bytes.substr(range->offset, range->length);
  }
  return result;
}

Result<std::vector<ListEntry>> MemoryStore::List(std::string_view prefix,
                                                 std::string_view start_after, size_t limit) {
  const std::lock_guard lock(mutex_);
  std::vector<ListEntry> entries;
  auto it = start_after < prefix ? objects_.lower_bound(prefix) : objects_.upper_bound(start_after);
  for (; it != objects_.end() && entries.size() < limit && it->first.starts_with(prefix); ++it) {
    entries.push_back({it->first, it->second.bytes.size()});
  }
  return entries;
}

Status MemoryStore::Delete(std::string_view key) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(key);
  if (it != objects_.end()) objects_.erase(it);
  return Status::Ok();
}

}  // namespace guildlite
