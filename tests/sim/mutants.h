// The protocol with one rule broken at a time, from outside: a store that lies to one party, as
// though that party did not keep the rule. Production code knows nothing of it. ARCHITECTURE.md has
// the table of rules and mutants.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "guildlite/object_store.h"
#include "tests/sim/scheduler.h"
#include "vfs/format/segment_reader.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/object_key.h"
#include "vfs/replicate/claim.h"

namespace guildlite::testing {

enum class Mutant {
  kNone,
  kNoReread,            // a claim does not ask the manifest again after its FENCE
  kNoFence,             // a takeover goes on at the log's end without a FENCE
  kFencesSwept,         // FENCEs that are not read any more are deleted, too
  kTwoInFlight,         // a second put begins before the first is answered
  kSkipsSlot,           // a put without an answer goes to the next slot instead
  kStaleTipForRestore,  // a restore takes a missing slot for the tip
  kStaleTipForClaim,    // a claim does
  kSameNonce,           // every manifest has the same nonce
  kSweepsOwnEpoch,      // orphans of the sweeper's own epoch are deleted
  kLogOverwrites,       // a put to the log is not create-only
  kSwapsBlindly,        // the manifest is put whatever is there
  kSilenceIsConsent,    // a put without an answer counts as done
  kExistsIsOurs,        // a slot that is taken counts as ours unread
  kDurableTooEarly,     // acknowledged is durable, before there is a snapshot
  kJoinedGoAtOnce,      // what was joined is deleted before the manifest names the segment
  kUnknownSwapFailed,   // what was uploaded for a swap without an answer is deleted
};

inline const char* NameOf(Mutant mutant) {
  constexpr const char* kNames[] = {
      "None",           "NoReread",           "NoFence",          "FencesSwept",  "TwoInFlight",
      "SkipsSlot",      "StaleTipForRestore", "StaleTipForClaim", "SameNonce",    "SweepsOwnEpoch",
      "LogOverwrites",  "SwapsBlindly",       "SilenceIsConsent", "ExistsIsOurs", "DurableTooEarly",
      "JoinedGoAtOnce", "UnknownSwapFailed"};
  return kNames[static_cast<int>(mutant)];
}

enum class Role { kClaim, kShip, kSnapshot, kCompact, kSweep, kReader };

class MutantStore : public ObjectStore {
 public:
  struct World {
    Scheduler* scheduler = nullptr;
    std::function<void(std::function<void()>)> background;  // runs it as a strand
    std::function<void(Slot)> landed;                       // a put of kTwoInFlight
  };

  MutantStore(ObjectStore& base, Mutant mutant, Role role, World world)
      : base_(base), mutant_(mutant), role_(role), world_(std::move(world)) {}

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    const bool log = key.starts_with(kLogPrefix);
    const bool manifest = key == kManifestKey;
    if (mutant_ == Mutant::kNoReread && role_ == Role::kClaim && log) {
      auto put = base_.Put(key, bytes, condition);
      fenced_ = put.ok();
      return put;
    }
    if (mutant_ == Mutant::kNoFence && role_ == Role::kClaim && log && key != LogKey(Slot(1))) {
      without_ = OpenObject(bytes, key)->header;
      return std::string("none");
    }
    if (mutant_ == Mutant::kTwoInFlight && role_ == Role::kShip && log) return PutAhead(key, bytes);
    if (mutant_ == Mutant::kSkipsSlot && role_ == Role::kShip && log) return PutSomewhere(bytes);
    if (mutant_ == Mutant::kLogOverwrites && role_ == Role::kShip && log) {
      return base_.Put(key, bytes, PutCondition::Overwrite());
    }
    if (mutant_ == Mutant::kSwapsBlindly && manifest) {
      return base_.Put(key, bytes, PutCondition::Overwrite());
    }
    auto put = base_.Put(key, bytes, condition);
    // What it wants to record of the epoch before it is no question.
    if (mutant_ == Mutant::kNoReread && role_ == Role::kClaim && manifest && fenced_ && !put.ok()) {
      return std::string("stale");
    }
    if (mutant_ == Mutant::kSilenceIsConsent && role_ == Role::kShip && log && !put.ok() &&
        put.status().tag() == Tag::kOutcomeUnknown) {
      return std::string("unknown");
    }
    if (mutant_ == Mutant::kExistsIsOurs && role_ == Role::kShip && log &&
        put.status().tag() == Tag::kAlreadyExists) {
      return std::string("somebody's");
    }
    if (role_ == Role::kCompact) {
      const auto segment = ParseSegmentKey(key);
      if (segment) uploaded_ = std::string(key);
      if (mutant_ == Mutant::kJoinedGoAtOnce && segment && put.ok()) {
        for (Slot s = segment->first; s <= segment->last; s = s.Next()) {
          (void)base_.Delete(LogKey(s));
        }
      }
      if (mutant_ == Mutant::kUnknownSwapFailed && manifest && !put.ok() && !uploaded_.empty()) {
        (void)base_.Delete(uploaded_);
      }
    }
    return put;
  }

  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    if (key == kManifestKey) {
      const bool again = fenced_ || std::exchange(missed_, false);
      if (again && manifest_) return *manifest_;
      auto got = base_.Get(key, range);
      if (got.ok()) manifest_ = *got;
      return got;
    }
    if (mutant_ == Mutant::kSkipsSlot && role_ == Role::kShip && ParseLogKey(key)) {
      return base_.Get(LogKey(Slot(ParseLogKey(key)->value + skipped_)), range);
    }
    auto got = base_.Get(key, range);
    const bool stale = (mutant_ == Mutant::kStaleTipForRestore && role_ == Role::kReader) ||
                       (mutant_ == Mutant::kStaleTipForClaim && role_ == Role::kClaim);
    if (stale && got.status().tag() == Tag::kNotFound) missed_ = true;
    return got;
  }

  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    return base_.List(prefix, start_after, limit);
  }
  Status Delete(std::string_view key) override { return base_.Delete(key); }
  Status DeleteAll(std::span<const std::string> keys) override {
    if (mutant_ == Mutant::kFencesSwept) {
      auto manifest = ReadManifest(base_);
      if (!manifest.ok()) return manifest.status();
      horizon_ = manifest->manifest.horizon;
      for (const std::string& key : keys) {
        const auto slot = ParseLogKey(key);
        if (slot && slot->value > 1) GUILDLITE_RETURN_IF_ERROR(DeleteFence(Slot(slot->value - 1)));
      }
    }
    return base_.DeleteAll(keys);
  }
  std::string Describe() const override { return base_.Describe(); }

  // A claim begins.
  void Claiming() { fenced_ = false; }
  // It succeeded. kNoFence: what it would have found without one.
  void Claimed(StoreView* view) {
    if (!without_) return;
    view->next = without_->slot;
    view->previous_hash = without_->previous_hash;
    without_.reset();
  }

 private:
  Status DeleteFence(Slot slot) {
    if (slot >= horizon_) return Status::Ok();
    const auto object = base_.Get(LogKey(slot), std::nullopt);
    if (object.status().tag() == Tag::kNotFound) return Status::Ok();
    if (!object.ok()) return object.status();
    if (OpenObject(object->bytes, "")->header.kind != ObjectKind::kFence) return Status::Ok();
    return base_.Delete(LogKey(slot));
  }

  // Says done at once; the put goes on behind, and at most two do.
  Result<std::string> PutAhead(std::string_view key, std::string_view bytes) {
    while (ahead_ >= 2) world_.scheduler->Sleep(2);
    if (stopped_) return Status(Tag::kAlreadyExists, "fenced");
    ++ahead_;
    world_.background([this, k = std::string(key), b = std::string(bytes)] {
      for (;;) {
        auto put = base_.Put(k, b, PutCondition::Create());
        if (put.ok()) {
          world_.landed(*ParseLogKey(k));
          break;
        }
        if (put.status().tag() == Tag::kAlreadyExists) {
          auto there = base_.Get(k, std::nullopt);
          if (there.ok() && there->bytes == b) {
            world_.landed(*ParseLogKey(k));
            break;
          }
          if (there.ok()) {
            stopped_ = true;
            break;
          }
        }
        world_.scheduler->Sleep(20);
      }
      --ahead_;
    });
    return std::string("ahead");
  }

  Result<std::string> PutSomewhere(std::string_view bytes) {
    auto object = OpenObject(bytes, "");
    for (;;) {
      std::string moved(bytes);
      if (skipped_ > 0) {
        ObjectHeader header = object->header;
        header.slot = header.last_slot = Slot(header.slot.value + skipped_);
        header.previous_hash = last_hash_;
        moved = EncodeObject(
            header, std::string_view(reinterpret_cast<const char*>(object->inline_body.data()),
                                     object->inline_body.size()));
      }
      const Slot slot(object->header.slot.value + skipped_);
      auto put = base_.Put(LogKey(slot), moved, PutCondition::Create());
      if (put.ok()) {
        last_hash_ = ObjectHash(moved);
        return put;
      }
      if (put.status().tag() != Tag::kOutcomeUnknown) return put;
      if (skipped_ == 0) last_hash_ = object->header.previous_hash;
      ++skipped_;
    }
  }

  ObjectStore& base_;
  const Mutant mutant_;
  const Role role_;
  const World world_;
  std::optional<StoredObject> manifest_;  // as it was read last
  bool fenced_ = false;
  bool missed_ = false;
  std::optional<ObjectHeader> without_;
  std::string uploaded_;
  Slot horizon_;
  int ahead_ = 0;
  bool stopped_ = false;
  uint64_t skipped_ = 0;
  uint64_t last_hash_ = 0;
};

}  // namespace guildlite::testing
