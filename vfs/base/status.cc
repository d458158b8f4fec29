#include "guildlite/status.h"

namespace guildlite {

std::string_view TagName(Tag tag) {
  switch (tag) {
    case Tag::kOk:
      return "OK";
    case Tag::kBadArgument:
      return "BAD_ARGUMENT";
    case Tag::kBadUrl:
      return "BAD_URL";
    case Tag::kNotReplicated:
      return "NOT_REPLICATED";
    case Tag::kBadId:
      return "BAD_ID";
    case Tag::kInTransaction:
      return "IN_TRANSACTION";
    case Tag::kTimeout:
      return "TIMEOUT";
    case Tag::kMapConflict:
      return "MAP_CONFLICT";
    case Tag::kMoveInProgress:
      return "MOVE_IN_PROGRESS";
    case Tag::kBusy:
      return "BUSY";
    case Tag::kStoreUnreachable:
      return "STORE_UNREACHABLE";
    case Tag::kStoreThrottled:
      return "STORE_THROTTLED";
    case Tag::kNotDurable:
      return "NOT_DURABLE";
    case Tag::kOutcomeUnknown:
      return "OUTCOME_UNKNOWN";
    case Tag::kTlsNoCa:
      return "TLS_NO_CA";
    case Tag::kLocalIo:
      return "LOCAL_IO";
    case Tag::kStoreDenied:
      return "STORE_DENIED";
    case Tag::kNoBucket:
      return "NO_BUCKET";
    case Tag::kExists:
      return "EXISTS";
    case Tag::kRestoreNeeded:
      return "RESTORE_NEEDED";
    case Tag::kStoreUnsafe:
      return "STORE_UNSAFE";
    case Tag::kPrefixClash:
      return "PREFIX_CLASH";
    case Tag::kFormatTooNew:
      return "FORMAT_TOO_NEW";
    case Tag::kNoBackup:
      return "NO_BACKUP";
    case Tag::kNoSuchPoint:
      return "NO_SUCH_POINT";
    case Tag::kPositionLost:
      return "POSITION_LOST";
    case Tag::kFenced:
      return "FENCED";
    case Tag::kOwned:
      return "OWNED";
    case Tag::kDiverged:
      return "DIVERGED";
    case Tag::kForked:
      return "FORKED";
    case Tag::kNotOwner:
      return "NOT_OWNER";
    case Tag::kChainBroken:
      return "CHAIN_BROKEN";
    case Tag::kWrongKey:
      return "WRONG_KEY";
    case Tag::kDiskFull:
      return "DISK_FULL";
    case Tag::kNotFound:
      return "NOT_FOUND";
    case Tag::kAlreadyExists:
      return "ALREADY_EXISTS";
    case Tag::kPrecondition:
      return "PRECONDITION";
  }
  return "UNKNOWN";
}

std::string Status::ToString() const {
  if (ok()) return "OK";
  return std::string(TagName(tag_)) + ": " + message_;
}

Status Status::Context(std::string_view doing) const {
  if (ok()) return *this;
  return Status(tag_, std::string(doing) + ": " + message_, retryable_);
}

}  // namespace guildlite
