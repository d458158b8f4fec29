// Status and Result: how every expected trouble travels.
//
// A Status is a tag from the closed list below plus a message that says what was being done to
// what, and what to do. Tags are part of the public surface (they open every error message and
// never change their meaning); vfs/shim/boundary.h alone turns them into SQLite codes. The last
// group is internal: those never reach a user; whoever receives one decides what it means there.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace guildlite {

enum class Tag {
  kOk,
  // SQLITE_ERROR
  kBadArgument,
  kBadUrl,
  kNotReplicated,
  // SQLITE_MISMATCH
  kBadId,
  // SQLITE_MISUSE
  kInTransaction,
  // SQLITE_BUSY: only where trying again is right
  kTimeout,
  kMapConflict,
  kMoveInProgress,
  kBusy,  // shown by SQLite itself as "database is locked"
  // SQLITE_IOERR
  kStoreUnreachable,
  kStoreThrottled,
  kNotDurable,
  kOutcomeUnknown,
  kTlsNoCa,
  kLocalIo,  // the local disk or file system answered with an error
  // SQLITE_AUTH
  kStoreDenied,
  // SQLITE_CANTOPEN
  kNoBucket,
  kExists,
  kRestoreNeeded,
  kStoreUnsafe,
  kPrefixClash,
  kFormatTooNew,
  // SQLITE_NOTFOUND
  kNoBackup,
  kNoSuchPoint,
  kPositionLost,
  // SQLITE_READONLY
  kFenced,
  kOwned,
  kDiverged,
  kForked,
  kNotOwner,
  // SQLITE_CORRUPT
  kChainBroken,
  // SQLITE_NOTADB
  kWrongKey,
  // SQLITE_FULL
  kDiskFull,
  // Internal: answers of an ObjectStore that callers branch on.
  kNotFound,
  kAlreadyExists,
  kPrecondition,
};

// "FENCED", "CHAIN_BROKEN", ...: the stable upper-case name.
std::string_view TagName(Tag tag);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Tag tag, std::string message, bool retryable = false)
      : tag_(tag), retryable_(retryable), message_(std::move(message)) {}
  static Status Ok() { return {}; }

  bool ok() const { return tag_ == Tag::kOk; }
  Tag tag() const { return tag_; }
  // Set where the cause is known: the same request may succeed later, unchanged.
  bool retryable() const { return retryable_; }
  const std::string& message() const { return message_; }
  // "TAG: message"
  std::string ToString() const;
  // The same error with what was being done put in front, once per floor.
  Status Context(std::string_view doing) const;

 private:
  Tag tag_ = Tag::kOk;
  bool retryable_ = false;
  std::string message_;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                                  // NOLINT
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }  // NOLINT
  Result(Tag tag, std::string message) : status_(tag, std::move(message)) {}

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & {
    assert(ok());
    return *value_;
  }
  const T& value() const& {
    assert(ok());
    return *value_;
  }
  T&& value() && {
    assert(ok());
    return *std::move(value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace guildlite

// Returns the error of an expression that yields a Status.
#define GUILDLITE_RETURN_IF_ERROR(expr)                        \
  do {                                                         \
    if (::guildlite::Status status_ = (expr); !status_.ok()) { \
      return status_;                                          \
    }                                                          \
  } while (0)
