#include "vfs/objects/manifest.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/base/time_text.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using nlohmann::json;

constexpr uint32_t kReaderVersion = 1;
// A thousand snapshots are 0.5 MB. Bounds what damage can make us allocate.
constexpr size_t kManifestBytesMax = 16 << 20;
// Ours has 3. The JSON library prints and compares by recursion.
constexpr int kDepthMax = 32;
constexpr size_t kTextBytesMax = 4096;

// RFC 3629, without overlong forms, surrogates and what is above U+10FFFF.
bool IsUtf8(std::string_view text) {
  const auto at = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto follows = [&](size_t i) { return (at(i) & 0xc0) == 0x80; };
  for (size_t i = 0; i < text.size();) {
    const unsigned b = at(i), next = at(i + 1);
    if (b < 0x80) {
      i += 1;
    } else if (b >= 0xc2 && b <= 0xdf && follows(i + 1)) {
      i += 2;
    } else if (b >= 0xe0 && b <= 0xef && follows(i + 1) && follows(i + 2) &&
               !(b == 0xe0 && next < 0xa0) && !(b == 0xed && next > 0x9f)) {
      i += 3;
    } else if (b >= 0xf0 && b <= 0xf4 && follows(i + 1) && follows(i + 2) && follows(i + 3) &&
               !(b == 0xf0 && next < 0x90) && !(b == 0xf4 && next > 0x8f)) {
      i += 4;
    } else {
      return false;
    }
  }
  return true;
}

bool NestsTooDeep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kDepthMax) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

// Null when it is not a JSON object we can walk.
json ParseObject(std::string_view text) {
  if (text.size() > kManifestBytesMax || NestsTooDeep(text)) return nullptr;
  json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return nullptr;
  return root;
}

std::string Hex16(uint64_t value) {
  std::string out(16, '0');
  for (size_t i = 16; i-- > 0; value >>= 4) out[i] = "0123456789abcdef"[value & 15];
  return out;
}

// --- The seal ---

constexpr std::string_view kSealBegin = "{\n \"checksum\": \"";
constexpr std::string_view kSealEnd = "\",\n";
constexpr size_t kSealBytes = kSealBegin.size() + 16 + kSealEnd.size();

bool IsSealed(std::string_view text) {
  return text.size() > kSealBytes && text.starts_with(kSealBegin) &&
         text.substr(kSealBegin.size(), 16) == Hex16(Hash64(AsBytes(text.substr(kSealBytes)))) &&
         text.substr(kSealBegin.size() + 16).starts_with(kSealEnd);
}

// --- Encoding ---

json KnownAndUnknown(const std::string& unknown_json) {
  return unknown_json.empty() ? json::object() : ParseObject(unknown_json);
}

json ToJson(const PastEpoch& past) {
  json out = KnownAndUnknown(past.unknown_json);
  out["epoch"] = past.epoch.value;
  out["fence"] = Hex16(past.fence.value);
  out["history_hash"] = Hex16(past.history_hash);
  out["last_txid"] = Hex16(past.last_txid.value);
  return out;
}

json ToJson(const SnapshotRecord& snapshot) {
  json out = KnownAndUnknown(snapshot.unknown_json);
  out["bytes"] = Hex16(snapshot.bytes);
  out["database_bytes"] = Hex16(snapshot.database_bytes);
  out["end_slot"] = Hex16(snapshot.end_slot.value);
  out["epoch"] = snapshot.epoch.value;
  out["first_slot"] = Hex16(snapshot.first_slot.value);
  out["history_hash"] = Hex16(snapshot.history_hash);
  out["key"] = snapshot.key;
  out["label"] = snapshot.label;
  out["time_ms"] = Hex16(static_cast<uint64_t>(snapshot.time_ms));
  out["txid"] = Hex16(snapshot.txid.value);
  out["usable_from"] = Hex16(snapshot.usable_from.value);
  out["usable_history_hash"] = Hex16(snapshot.usable_history_hash);
  return out;
}

json ToJson(const SegmentRecord& segment) {
  json out = KnownAndUnknown(segment.unknown_json);
  out["bytes"] = Hex16(segment.bytes);
  out["first_slot"] = Hex16(segment.first_slot.value);
  out["first_txid"] = Hex16(segment.first_txid.value);
  out["key"] = segment.key;
  out["last_object_hash"] = Hex16(segment.last_object_hash);
  out["last_slot"] = Hex16(segment.last_slot.value);
  out["last_txid"] = Hex16(segment.last_txid.value);
  out["level"] = segment.level;
  return out;
}

json ToJson(const Tombstone& tombstone) {
  json out = KnownAndUnknown(tombstone.unknown_json);
  out["key"] = tombstone.key;
  out["last_slot"] = Hex16(tombstone.last_slot.value);
  out["since_ms"] = Hex16(static_cast<uint64_t>(tombstone.since_ms));
  return out;
}

template <class Record>
json ToJson(const std::vector<Record>& records) {
  json out = json::array();
  for (const Record& record : records) out.push_back(ToJson(record));
  return out;
}

// --- Decoding ---

// The members of one JSON object, each taken once by name; what nobody took is unknown. The first
// member that is missing or of the wrong shape is the error; from then on everything reads as zero.
class Members {
 public:
  explicit Members(const json& object) : object_(object) {
    if (!object.is_object()) Fail("not an object");
  }

  uint64_t Hex(const char* name) {
    const json* const node = Take(name);
    const auto* const text = node ? node->get_ptr<const json::string_t*>() : nullptr;
    if (!text || text->size() != 16) return Fail(name);
    uint64_t value = 0;
    for (const char c : *text) {
      if (c >= '0' && c <= '9') {
        value = value << 4 | static_cast<uint64_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value = value << 4 | static_cast<uint64_t>(c - 'a' + 10);
      } else {
        return Fail(name);
      }
    }
    return value;
  }
  int64_t Time(const char* name) {
    const uint64_t value = Hex(name);
    return static_cast<int64_t>(value <= INT64_MAX ? value : Fail(name));
  }
  uint32_t Number(const char* name) {
    const json* const node = Take(name);
    const auto* const value = node ? node->get_ptr<const json::number_unsigned_t*>() : nullptr;
    if (!value || *value > std::numeric_limits<uint32_t>::max()) {
      return static_cast<uint32_t>(Fail(name));
    }
    return static_cast<uint32_t>(*value);
  }
  std::string Text(const char* name) {
    const json* const node = Take(name);
    const auto* const text = node ? node->get_ptr<const json::string_t*>() : nullptr;
    if (!text) {
      Fail(name);
      return {};
    }
    return *text;
  }
  template <class Record>
  std::vector<Record> Records(const char* name, Record (*read)(Members&)) {
    std::vector<Record> records;
    const json* const node = Take(name);
    if (!node || !node->is_array()) {
      Fail(name);
      return records;
    }
    for (const json& element : *node) {
      Members members(element);
      records.push_back(read(members));
      if (!members.error().empty()) {
        Fail(std::string(name) + "[" + std::to_string(records.size() - 1) + "]." + members.error());
        break;
      }
    }
    return records;
  }
  bool Has(const char* name) const { return object_.contains(name); }
  std::string Unknown() const {
    if (!error_.empty()) return {};
    json rest = json::object();
    for (const auto& [name, node] : object_.items()) {
      if (!taken_.contains(name)) rest[name] = node;
    }
    return rest.empty() ? std::string() : rest.dump();
  }
  const std::string& error() const { return error_; }

 private:
  const json* Take(const char* name) {
    if (!error_.empty()) return nullptr;
    taken_.insert(name);
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }
  uint64_t Fail(std::string what) {
    if (error_.empty()) error_ = std::move(what);
    return 0;
  }

  const json& object_;
  std::set<std::string> taken_;
  std::string error_;
};

PastEpoch ReadPastEpoch(Members& members) {
  PastEpoch past;
  past.epoch = Epoch(members.Number("epoch"));
  past.fence = Slot(members.Hex("fence"));
  past.history_hash = members.Hex("history_hash");
  past.last_txid = Txid(members.Hex("last_txid"));
  past.unknown_json = members.Unknown();
  return past;
}

SnapshotRecord ReadSnapshot(Members& members) {
  SnapshotRecord snapshot;
  snapshot.bytes = members.Hex("bytes");
  snapshot.database_bytes = members.Hex("database_bytes");
  snapshot.end_slot = Slot(members.Hex("end_slot"));
  snapshot.epoch = Epoch(members.Number("epoch"));
  snapshot.first_slot = Slot(members.Hex("first_slot"));
  snapshot.history_hash = members.Hex("history_hash");
  snapshot.key = members.Text("key");
  snapshot.label = members.Text("label");
  snapshot.time_ms = members.Time("time_ms");
  snapshot.txid = Txid(members.Hex("txid"));
  snapshot.usable_from = Txid(members.Hex("usable_from"));
  snapshot.usable_history_hash = members.Hex("usable_history_hash");
  snapshot.unknown_json = members.Unknown();
  return snapshot;
}

SegmentRecord ReadSegment(Members& members) {
  SegmentRecord segment;
  segment.bytes = members.Hex("bytes");
  segment.first_slot = Slot(members.Hex("first_slot"));
  segment.first_txid = Txid(members.Hex("first_txid"));
  segment.key = members.Text("key");
  segment.last_object_hash = members.Hex("last_object_hash");
  segment.last_slot = Slot(members.Hex("last_slot"));
  segment.last_txid = Txid(members.Hex("last_txid"));
  segment.level = members.Number("level");
  segment.unknown_json = members.Unknown();
  return segment;
}

Tombstone ReadTombstone(Members& members) {
  Tombstone tombstone;
  tombstone.key = members.Text("key");
  tombstone.last_slot = Slot(members.Hex("last_slot"));
  tombstone.since_ms = members.Time("since_ms");
  tombstone.unknown_json = members.Unknown();
  return tombstone;
}

// --- Validation ---

Status Broken(std::string_view what) {
  return Status(Tag::kChainBroken, "manifest: " + std::string(what));
}

bool IsUnknown(const std::string& unknown_json) {
  return unknown_json.empty() || !ParseObject(unknown_json).is_null();
}

bool IsText(std::string_view text) { return text.size() <= kTextBytesMax && IsUtf8(text); }

// Invariant 2.
Status CheckSuccessor(const Manifest& from, const Manifest& to) {
  if (to.lineage != from.lineage) {
    return Status(Tag::kBadArgument, "manifest: its lineage cannot change");
  }
  if (to.epoch < from.epoch || to.floor < from.floor || to.horizon < from.horizon) {
    return Status(Tag::kBadArgument, "manifest: epoch, floor and horizon cannot go back");
  }
  return Status::Ok();
}

bool IsUnsettled(const Status& status) {
  return status.retryable() || status.tag() == Tag::kOutcomeUnknown;
}

uint64_t FreshNonce(Random& random, uint64_t old) {
  uint64_t nonce = random.Next64();
  if (nonce == old)
    ++nonce;  // with a source that repeats itself; invariant 1 must hold all the same
  return nonce;
}

}  // namespace

Status Manifest::Validate() const {
  if (format < 1 || min_reader < 1 || min_reader > format) return Broken("format, min_reader");
  if (rev < 1) return Broken("rev is 0");
  if (epoch.value < 1) return Broken("epoch is 0");
  if (floor.value < 1) return Broken("floor is 0");
  if (horizon.value < 1 || horizon > floor) return Broken("horizon is not in 1..floor");
  if (claimed_ms < 0 || released_ms < 0) return Broken("a time of the claim is negative");
  if (!IsText(owner)) return Broken("owner is no UTF-8 text of a few bytes");
  if (!IsUnknown(unknown_json)) return Broken("unknown_json is not an object");

  if (past_epochs.size() != epoch.value - 1) return Broken("past_epochs does not reach epoch-1");
  for (size_t i = 0; i < past_epochs.size(); ++i) {
    const PastEpoch& past = past_epochs[i];
    if (past.epoch.value != i + 1) return Broken("past_epochs is not dense from 1");
    if (i > 0 &&
        (past.last_txid < past_epochs[i - 1].last_txid || past.fence < past_epochs[i - 1].fence)) {
      return Broken("past_epochs goes back");
    }
    if (!IsUnknown(past.unknown_json)) return Broken("unknown_json is not an object");
  }
  for (size_t i = 0; i < snapshots.size(); ++i) {
    const SnapshotRecord& snapshot = snapshots[i];
    if (!IsValidKey(snapshot.key)) return Broken("a snapshot's key is malformed");
    if (snapshot.txid > snapshot.usable_from) return Broken("a snapshot's txid > usable_from");
    if (snapshot.first_slot.value < 1) return Broken("a snapshot's first_slot is 0");
    if (snapshot.end_slot < snapshot.first_slot) return Broken("a snapshot's end_slot");
    if (snapshot.epoch.value < 1 || snapshot.epoch > epoch) return Broken("a snapshot's epoch");
    if (snapshot.time_ms < 0) return Broken("a snapshot's time_ms is negative");
    if (!IsText(snapshot.label))
      return Broken("a snapshot's label is no UTF-8 text of a few bytes");
    if (i > 0 && snapshot.usable_from < snapshots[i - 1].usable_from) {
      return Broken("snapshots are not ascending by usable_from");
    }
    if (!IsUnknown(snapshot.unknown_json)) return Broken("unknown_json is not an object");
  }
  Slot covered;
  for (const SegmentRecord& segment : segments) {
    if (!IsValidKey(segment.key)) return Broken("a segment's key is malformed");
    if (segment.first_slot.value < 1 || segment.first_slot > segment.last_slot ||
        segment.first_txid > segment.last_txid) {
      return Broken("a segment's ranges");
    }
    if (segment.first_slot <= covered) return Broken("segments are not ascending");
    covered = segment.last_slot;
    if (!IsUnknown(segment.unknown_json)) return Broken("unknown_json is not an object");
  }
  if (covered >= floor) return Broken("a segment reaches above the floor");
  for (const Tombstone& tombstone : tombstones) {
    if (!IsValidKey(tombstone.key)) return Broken("a tombstone's key is malformed");
    if (tombstone.last_slot.value != 0) {
      const auto first = ParseLogKey(tombstone.key);
      if (!first || *first > tombstone.last_slot || tombstone.last_slot >= floor) {
        return Broken("a tombstone's last_slot");
      }
    }
    if (tombstone.since_ms < 0) return Broken("a tombstone's since_ms is negative");
    if (!IsUnknown(tombstone.unknown_json)) return Broken("unknown_json is not an object");
  }
  return Status::Ok();
}

Status Manifest::CheckOwner(Epoch owned, Session by) const {
  if (epoch == owned && session == by) return Status::Ok();
  return Status(Tag::kFenced, "another writer has taken over this log (" + DescribeOwner() + ")");
}

std::string Manifest::DescribeOwner() const {
  std::string text = owner.empty() ? "nobody named" : owner;
  if (claimed_ms != 0) text += ", since " + FormatTime(claimed_ms);
  return text;
}

bool SurvivedItsEpoch(const Manifest& manifest, const SnapshotRecord& snapshot) {
  return std::none_of(
      manifest.past_epochs.begin(), manifest.past_epochs.end(), [&snapshot](const PastEpoch& past) {
        return past.epoch >= snapshot.epoch && past.last_txid < snapshot.usable_from;
      });
}

std::string Manifest::Encode() const {
  assert(Validate().ok());
  json out = KnownAndUnknown(unknown_json);
  if (claimed_ms != 0 || released_ms != 0) {
    out["claim_epoch"] = epoch.value;
    out["claimed_ms"] = Hex16(static_cast<uint64_t>(claimed_ms));
    out["released_ms"] = Hex16(static_cast<uint64_t>(released_ms));
  }
  out["epoch"] = epoch.value;
  out["floor"] = Hex16(floor.value);
  out["format"] = format;
  out["horizon"] = Hex16(horizon.value);
  out["lineage"] = Hex16(lineage.value);
  out["min_reader"] = min_reader;
  out["nonce"] = Hex16(nonce);
  out["owner"] = owner;
  out["past_epochs"] = ToJson(past_epochs);
  out["rev"] = Hex16(rev);
  out["segments"] = ToJson(segments);
  out["session"] = Hex16(session.value);
  out["snapshots"] = ToJson(snapshots);
  out["tombstones"] = ToJson(tombstones);
  return SealManifest(out.dump(1) + "\n");  // people read it with curl
}

std::string SealManifest(std::string_view object) {
  if (!object.starts_with("{")) return {};
  object.remove_prefix(1);
  if (object.starts_with("\n")) object.remove_prefix(1);
  std::string sealed(kSealBegin);
  sealed += Hex16(Hash64(AsBytes(object)));
  sealed += kSealEnd;
  sealed += object;
  return sealed;
}

Result<Manifest> Manifest::Decode(std::string_view text, std::string_view name) {
  const json root = ParseObject(text);
  if (root.is_null()) {
    return Status(Tag::kChainBroken, std::string(name) + ": not a JSON object");
  }
  Members members(root);
  members.Hex("checksum");
  if (!members.error().empty() || !IsSealed(text)) {
    return Status(Tag::kChainBroken,
                  std::string(name) +
                      ": checksum: it does not match what follows; bring back an earlier version "
                      "of this object, or replicate to another url");
  }
  Manifest manifest;
  manifest.format = members.Number("format");
  manifest.min_reader = members.Number("min_reader");
  // Version before meaning: what a newer format says in the other members we cannot judge.
  if (members.error().empty() && manifest.min_reader > kReaderVersion) {
    return Status(Tag::kFormatTooNew, std::string(name) + ": written for readers of format " +
                                          std::to_string(manifest.min_reader) +
                                          ", this one knows " + std::to_string(kReaderVersion) +
                                          "; use the version that wrote it");
  }
  manifest.epoch = Epoch(members.Number("epoch"));
  manifest.floor = Slot(members.Hex("floor"));
  manifest.horizon = Slot(members.Hex("horizon"));
  manifest.lineage = Lineage(members.Hex("lineage"));
  manifest.nonce = members.Hex("nonce");
  manifest.owner = members.Text("owner");
  manifest.past_epochs = members.Records("past_epochs", &ReadPastEpoch);
  manifest.rev = members.Hex("rev");
  manifest.segments = members.Records("segments", &ReadSegment);
  manifest.session = Session(members.Hex("session"));
  manifest.snapshots = members.Records("snapshots", &ReadSnapshot);
  manifest.tombstones = members.Records("tombstones", &ReadTombstone);
  if (members.Has("claim_epoch") || members.Has("claimed_ms") || members.Has("released_ms")) {
    const Epoch of(members.Number("claim_epoch"));
    const int64_t claimed_ms = members.Time("claimed_ms");
    const int64_t released_ms = members.Time("released_ms");
    if (of == manifest.epoch) {
      manifest.claimed_ms = claimed_ms;
      manifest.released_ms = released_ms;
    }
  }
  manifest.unknown_json = members.Unknown();
  if (!members.error().empty()) {
    return Status(Tag::kChainBroken,
                  std::string(name) + ": member '" + members.error() + "' is missing or malformed");
  }
  if (const Status valid = manifest.Validate(); !valid.ok()) return valid.Context(name);
  return manifest;
}

Result<ManifestAt> ReadManifest(ObjectStore& store) {
  auto object = store.Get(kManifestKey);
  if (!object.ok()) return object.status();
  auto manifest = Manifest::Decode(object->bytes, kManifestKey);
  if (!manifest.ok()) return manifest.status().Context(store.Describe());
  return ManifestAt{*std::move(manifest), std::move(object->version)};
}

Result<ManifestAt> CreateManifest(ObjectStore& store, Manifest manifest, Random& random) {
  manifest.rev = 1;
  manifest.nonce = FreshNonce(random, 0);
  GUILDLITE_RETURN_IF_ERROR(manifest.Validate());
  const auto put = store.Put(kManifestKey, manifest.Encode(), PutCondition::Create());
  if (put.ok()) return ManifestAt{std::move(manifest), *put};
  // With a retrying store, kAlreadyExists too may be a lost reply to ourselves, built upon since.
  if (!IsUnsettled(put.status())) return put.status();
  auto now = ReadManifest(store);
  if (!now.ok()) return put.status();
  if (now->manifest.nonce == manifest.nonce) return now;
  return Status(Tag::kAlreadyExists, "create " + std::string(kManifestKey) + ": it exists");
}

Result<ManifestAt> SwapManifest(ObjectStore& store, const ManifestAt& from, Manifest to,
                                Random& random) {
  to.rev = from.manifest.rev + 1;
  to.nonce = FreshNonce(random, from.manifest.nonce);
  GUILDLITE_RETURN_IF_ERROR(CheckSuccessor(from.manifest, to));
  GUILDLITE_RETURN_IF_ERROR(to.Validate());
  const auto put = store.Put(kManifestKey, to.Encode(), PutCondition::Match(from.version));
  if (put.ok()) return ManifestAt{std::move(to), *put};
  if (!IsUnsettled(put.status())) return put.status();
  // The table in the header.
  auto now = ReadManifest(store);
  if (!now.ok() || now->version == from.version) return put.status();
  if (now->manifest.nonce == to.nonce && now->manifest.rev == to.rev) return now;
  if (now->manifest.rev == to.rev) {
    return Status(Tag::kPrecondition, "swap " + std::string(kManifestKey) + ": another swap won");
  }
  return Status(Tag::kOutcomeUnknown,
                "swap " + std::string(kManifestKey) + ": lost the reply, and others swapped since",
                true);
}

Result<ManifestAt> UpdateManifest(ObjectStore& store, Random& random,
                                  const std::function<Status(Manifest&)>& change,
                                  std::optional<ManifestAt> known) {
  for (int i = 0; i < kUpdateTriesMax; ++i) {
    auto from = known ? Result<ManifestAt>(*std::move(known)) : ReadManifest(store);
    known.reset();
    if (!from.ok()) return from.status();
    Manifest to = from->manifest;
    GUILDLITE_RETURN_IF_ERROR(change(to));
    auto swapped = SwapManifest(store, *from, std::move(to), random);
    if (swapped.ok()) return swapped;
    const Tag tag = swapped.status().tag();
    if (tag != Tag::kPrecondition && tag != Tag::kOutcomeUnknown) return swapped.status();
  }
  return Status(Tag::kStoreThrottled,
                "swap " + std::string(kManifestKey) + ": lost against others " +
                    std::to_string(kUpdateTriesMax) + " times in a row",
                true);
}

}  // namespace guildlite
