#include "vfs/restore/restore_plan.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <limits>
#include <system_error>
#include <utility>

#include "vfs/base/time_text.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

constexpr std::string_view kLabelPrefix = "label:";
constexpr int64_t kAnyTime = std::numeric_limits<int64_t>::max();

std::string Number(Txid txid) { return std::to_string(txid.value); }

uint32_t CheckOf(uint64_t history_hash) { return static_cast<uint32_t>(history_hash); }

Status Broken(Slot slot, const std::string& what) {
  return Status(Tag::kChainBroken, LogKey(slot) + ": " + what);
}

// One point of a history; a restore point if its rolling checksum is known.
struct Point {
  Txid txid;
  Epoch epoch;
  int64_t time_ms = 0;
  uint64_t history_hash = 0;
  bool restorable = false;
  bool in_snapshot = false;  // proven by the header of the snapshot
  uint64_t rolling_checksum = 0;
  uint32_t database_pages = 0;
};

std::string Describe(Lineage lineage, const Point& p) {
  return "txid " + Number(p.txid) + " (" + FormatTime(p.time_ms) + ", " +
         Position{lineage, p.epoch, p.txid, CheckOf(p.history_hash)}.ToString() + ")";
}

Point OwnPoint(const SnapshotRecord& s) {
  return {.txid = s.usable_from,
          .epoch = s.epoch,
          .time_ms = s.time_ms,
          .history_hash = s.usable_history_hash,
          .restorable = true,
          .in_snapshot = s.txid == s.usable_from};
}

// The transactions of one object that are part of the history.
struct Run {
  size_t entry = 0;
  Txid first;
  Txid last;  // below the object's own last_txid where a later object took the rest back
  bool in_heal = false;
  std::optional<size_t> heal_end;  // the HEAL_END that proves `last`
};

// What is left of the log after replaying a prefix of it.
struct History {
  std::vector<Run> runs;  // txids dense and ascending
  Txid tip;
  // The snapshot's usable point was taken back: it holds pages that are not part of this history.
  bool snapshot_lost = false;
};

// A HEAL_END may bring the last differences itself.
bool HoldsTransactions(const ObjectHeader& h, Txid tip) {
  return h.kind == ObjectKind::kData || h.kind == ObjectKind::kSegment ||
         (h.kind == ObjectKind::kHealEnd && h.first_txid > tip);
}

class Replay {
 public:
  explicit Replay(const SnapshotRecord& snapshot) : snapshot_(snapshot) {
    history_.tip = snapshot.txid;
    reached_ = snapshot.txid == snapshot.usable_from;
  }

  Status Add(size_t index, const ObjectHeader& h) {
    const bool begins = h.kind == ObjectKind::kFence || epoch_ == Epoch(0);
    if (begins ? h.epoch < epoch_ : h.epoch != epoch_) {
      return Broken(h.slot, "of epoch " + std::to_string(h.epoch.value) +
                                ", in the middle of epoch " + std::to_string(epoch_.value));
    }
    epoch_ = h.epoch;
    switch (h.kind) {
      case ObjectKind::kData:
      case ObjectKind::kSegment:
        return AddTransactions(index, h);
      case ObjectKind::kFence:
        return TakeBackAbove(h.slot, h.continues_from);
      case ObjectKind::kVoid:
        return Status::Ok();
      case ObjectKind::kUndo:
        if (h.first_txid == Txid(0) || h.first_txid > h.last_txid || h.last_txid != history_.tip) {
          return Broken(h.slot, "undoes txids " + Number(h.first_txid) + " to " +
                                    Number(h.last_txid) + ", but the log is at txid " +
                                    Number(history_.tip));
        }
        return TakeBackAbove(h.slot, Txid(h.first_txid.value - 1));
      case ObjectKind::kHealBegin:
        // A heal that a kill interrupted is begun again: nothing since the first begin is proven.
        if (!heal_begin_) heal_begin_ = history_.tip;
        return Status::Ok();
      case ObjectKind::kHealEnd:
        if (HoldsTransactions(h, history_.tip)) {
          if (Status s = AddTransactions(index, h); !s.ok()) return s;
        }
        return EndHeal(index, h);
      case ObjectKind::kSnapshot:
        break;
    }
    return Broken(h.slot, "not an object of the log");
  }

  History Take() { return std::move(history_); }

 private:
  Status AddTransactions(size_t index, const ObjectHeader& h) {
    // A segment may have been joined over the snapshot's first slot.
    const bool begins_before = h.kind == ObjectKind::kSegment && index == 0;
    if ((begins_before ? h.first_txid > history_.tip.Next()
                       : h.first_txid != history_.tip.Next()) ||
        h.last_txid < history_.tip.Next()) {
      return Broken(h.slot, "holds txids " + Number(h.first_txid) + " to " + Number(h.last_txid) +
                                ", expected them to go on from txid " + Number(history_.tip));
    }
    history_.runs.push_back({.entry = index,
                             .first = history_.tip.Next(),
                             .last = h.last_txid,
                             .in_heal = heal_begin_.has_value()});
    history_.tip = h.last_txid;
    if (history_.tip >= snapshot_.usable_from) reached_ = true;
    return Status::Ok();
  }

  Status EndHeal(size_t index, const ObjectHeader& h) {
    if (h.last_txid != history_.tip) {
      return Broken(h.slot, "ends a heal at txid " + Number(h.last_txid) +
                                ", but the log is at txid " + Number(history_.tip));
    }
    heal_begin_.reset();
    if (h.rolling_known && !history_.runs.empty()) history_.runs.back().heal_end = index;
    return Status::Ok();
  }

  Status TakeBackAbove(Slot slot, Txid txid) {
    if (txid > history_.tip) {
      return Broken(slot, "continues from txid " + Number(txid) + ", but the log is at txid " +
                              Number(history_.tip));
    }
    if (txid < snapshot_.txid || (reached_ && txid < snapshot_.usable_from)) {
      history_.snapshot_lost = true;
      // What follows goes on from there, wherever that is; runs below are not ours to know.
      history_.runs.clear();
    }
    auto& runs = history_.runs;
    while (!runs.empty() && runs.back().first > txid) runs.pop_back();
    if (!runs.empty() && runs.back().last > txid) {
      runs.back().last = txid;
      runs.back().heal_end.reset();
    }
    if (heal_begin_ && txid <= *heal_begin_) heal_begin_.reset();
    history_.tip = txid;
    return Status::Ok();
  }

  const SnapshotRecord& snapshot_;
  History history_;
  bool reached_ = false;
  Epoch epoch_;
  std::optional<Txid> heal_begin_;
};

Result<History> ReplayLog(const SnapshotRecord& snapshot, std::span<const LogEntry> entries) {
  Replay replay(snapshot);
  for (size_t i = 0; i < entries.size(); i++) {
    if (Status s = replay.Add(i, entries[i].header); !s.ok()) return s;
  }
  return replay.Take();
}

// Answers about the points of one history.
class Points {
 public:
  Points(const SnapshotRecord& snapshot, const WalkedLog& log, const History& history)
      : snapshot_(snapshot), log_(log), runs_(history.runs) {}

  // REQUIRES: snapshot.usable_from <= txid <= tip.
  Result<Point> At(Txid txid) const {
    if (txid == snapshot_.txid) return OwnPoint(snapshot_);
    const Run& run = *std::prev(std::upper_bound(runs_.begin(), runs_.end(), txid,
                                                 [](Txid t, const Run& r) { return t < r.first; }));
    auto points = Inside(run, txid);
    if (!points.ok()) return points.status();
    return std::move(points->back());
  }

  // The last restore point at or below `at_most`, committed at `time_ms` or before.
  Result<std::optional<Point>> LastRestorable(Txid at_most, int64_t time_ms = kAnyTime) const {
    for (size_t i = runs_.size(); i-- > 0;) {
      const Run& run = runs_[i];
      if (run.first > at_most) continue;
      if (run.last < snapshot_.usable_from) break;
      if (run.in_heal && !run.heal_end) continue;
      // Times never run backwards: after a later predecessor nothing in here is early enough.
      if (i > 0 && Whole(runs_[i - 1]) && Header(runs_[i - 1]).time_ms > time_ms) continue;
      const Txid last = std::min(run.last, at_most);
      if (last == Header(run).last_txid) {
        const Result<Point> end = End(run);
        if (!end.ok()) return end.status();
        if (end->restorable && end->time_ms <= time_ms) return std::optional(*end);
      }
      auto points = Inside(run, last, true);
      if (!points.ok()) return points.status();
      for (size_t k = points->size(); k-- > 0;) {
        const Point& p = (*points)[k];
        if (p.txid < snapshot_.usable_from) break;
        if (p.restorable && p.time_ms <= time_ms) return std::optional(p);
      }
    }
    if (snapshot_.txid == snapshot_.usable_from && snapshot_.time_ms <= time_ms) {
      return std::optional(OwnPoint(snapshot_));
    }
    return std::optional<Point>();
  }

  // The first restore point above `txid`.
  Result<std::optional<Point>> FirstRestorableAbove(Txid txid) const {
    for (const Run& run : runs_) {
      if (run.last <= txid || (run.in_heal && !run.heal_end)) continue;
      auto points = Inside(run, run.last, true);
      if (!points.ok()) return points.status();
      for (const Point& p : *points) {
        if (p.txid > txid && p.txid >= snapshot_.usable_from && p.restorable) {
          return std::optional(p);
        }
      }
    }
    return std::optional<Point>();
  }

  // Commit time of the tip; of the snapshot where no transaction follows it.
  Result<int64_t> TipTime() const {
    if (runs_.empty()) return snapshot_.time_ms;
    auto points = Inside(runs_.back(), runs_.back().last);
    if (!points.ok()) return points.status();
    return points->back().time_ms;
  }

 private:
  const ObjectHeader& Header(const Run& run) const { return log_.entries[run.entry].header; }
  bool Whole(const Run& run) const { return run.last == Header(run).last_txid; }

  // The point an object ends in, from its header. REQUIRES Whole(run).
  Result<Point> End(const Run& run) const { return PointAt(run, run.last, Header(run)); }

  // `state` after a txid of the run: a header's, or a transaction's.
  template <class State>
  Result<Point> PointAt(const Run& run, Txid txid, const State& state) const {
    Point p{.txid = txid,
            .epoch = Header(run).epoch,
            .time_ms = state.time_ms,
            .history_hash = state.history_hash,
            .restorable = state.rolling_known && !run.in_heal,
            .rolling_checksum = state.rolling_checksum,
            .database_pages = state.database_pages};
    if (txid == run.last) {
      if (Status s = Prove(run, &p); !s.ok()) return s;
    }
    ProveBySnapshot(run, &p);
    return p;
  }

  // Points of the run up to `last`, ascending; without `all`, only the last one must be there.
  Result<std::vector<Point>> Inside(const Run& run, Txid last, bool all = false) const {
    const ObjectHeader& h = Header(run);
    if (!all && last == h.last_txid) {
      auto end = End(run);
      if (!end.ok()) return end.status();
      return std::vector<Point>{*end};
    }
    auto transactions = log_.transactions(log_.entries[run.entry]);
    if (!transactions.ok()) return transactions.status();
    std::vector<Point> points;
    Txid expected = h.first_txid;
    for (const Transaction& t : *transactions) {
      if (t.txid != expected) return Broken(h.slot, "txids are not dense");
      expected = expected.Next();
      if (t.txid > last) continue;
      const auto p = PointAt(run, t.txid, t);
      if (!p.ok()) return p.status();
      points.push_back(*p);
    }
    if (expected != h.last_txid.Next()) return Broken(h.slot, "transactions are missing");
    return points;
  }

  // A HEAL_END makes the transaction before it a restore point.
  Status Prove(const Run& run, Point* p) const {
    if (!run.heal_end) return Status::Ok();
    const ObjectHeader& proof = log_.entries[*run.heal_end].header;
    if (proof.history_hash != p->history_hash) {
      return Broken(proof.slot, "ends a heal of another history than txid " + Number(p->txid) +
                                    " of " + LogKey(Header(run).slot));
    }
    p->restorable = true;
    p->rolling_checksum = proof.rolling_checksum;
    return Status::Ok();
  }

  // No transaction of a first scan knows its checksum, not even the last one: the scan ends after
  // it. The snapshot's header has it then.
  void ProveBySnapshot(const Run& run, Point* p) const {
    if (p->restorable || run.in_heal || p->txid != snapshot_.usable_from ||
        p->history_hash != snapshot_.usable_history_hash) {
      return;
    }
    p->restorable = true;
    p->in_snapshot = true;
  }

  const SnapshotRecord& snapshot_;
  const WalkedLog& log_;
  const std::vector<Run>& runs_;
};

// A snapshot that nothing but itself is left of can be used where it is the target.
bool Alone(const SnapshotRecord& s) { return s.txid == s.usable_from; }

// Whether the log is kept from it to the tip. Without that its own point is all there is.
bool HasLog(const Manifest& m, const SnapshotRecord& s) { return s.first_slot >= m.horizon; }

// Whether the snapshot by itself is the target, whatever the log says. (Not so for a txid: its
// number may since have been given to another transaction.)
bool IsTarget(const SnapshotRecord& s, const RestoreTarget& target) {
  if (!Alone(s)) return false;
  if (target.kind == RestoreTarget::Kind::kPosition) {
    return target.position.txid == s.txid &&
           target.position.check == CheckOf(s.usable_history_hash);
  }
  return target.kind == RestoreTarget::Kind::kLabel;
}

// Whether the snapshot's own point is what was committed by then, as far as what is kept tells: the
// log after it is gone, so only a snapshot of the very next transaction proves that nothing came
// between. (Of transactions of the same millisecond it may be any.)
bool IsStateAt(const Manifest& m, const SnapshotRecord& s, int64_t time_ms) {
  return s.time_ms == time_ms ||
         std::any_of(m.snapshots.begin(), m.snapshots.end(), [&](const SnapshotRecord& next) {
           return next.usable_from == s.usable_from.Next() && next.time_ms > time_ms &&
                  SurvivedItsEpoch(m, next);
         });
}

// "; the nearest …": the points of snapshots around a target that nothing kept can reach.
std::string NearestSnapshots(const Manifest& m, const RestoreTarget& target) {
  const auto below = [&](const SnapshotRecord& s) {
    switch (target.kind) {
      case RestoreTarget::Kind::kTxid:
        return s.usable_from <= target.txid;
      case RestoreTarget::Kind::kPosition:
        return s.usable_from <= target.position.txid;
      case RestoreTarget::Kind::kTime:
        return s.time_ms <= target.time_ms;
      default:
        return true;
    }
  };
  const SnapshotRecord* lower = nullptr;
  const SnapshotRecord* upper = nullptr;
  for (const SnapshotRecord& s : m.snapshots) {
    if (below(s)) {
      if (!lower || s.usable_from > lower->usable_from) lower = &s;
    } else {
      if (!upper || s.usable_from < upper->usable_from) upper = &s;
    }
  }
  std::string text;
  if (lower) text += "; the nearest before is " + Describe(m.lineage, OwnPoint(*lower));
  if (upper) text += "; the nearest after is " + Describe(m.lineage, OwnPoint(*upper));
  return text;
}

class Planner {
 public:
  Planner(const Manifest& manifest, const SnapshotRecord& snapshot, const WalkedLog& log,
          const RestoreTarget& target)
      : manifest_(manifest), snapshot_(snapshot), log_(log), target_(target) {}

  Result<std::optional<RestorePlan>> Plan() {
    if (IsTarget(snapshot_, target_)) return std::optional(PlanFor(OwnPoint(snapshot_)));
    const bool has_log = HasLog(manifest_, snapshot_);
    const std::span<const LogEntry> entries = log_.entries.first(EndOfTargetsHistory());
    whole_log_ = has_log && entries.size() == log_.entries.size();
    auto history = ReplayLog(snapshot_, entries);
    if (!history.ok()) return history.status();
    history_ = *std::move(history);
    if (history_.snapshot_lost) return std::optional<RestorePlan>();

    if (!has_log) history_.tip = std::min(history_.tip, snapshot_.usable_from);

    next_ =
        log_.entries.empty() ? snapshot_.first_slot : log_.entries.back().header.last_slot.Next();
    if (whole_log_) beyond_ = std::max(SlotBeyond(manifest_, next_), log_.beyond);
    if (history_.tip < snapshot_.usable_from) {
      if (!whole_log_) return std::optional<RestorePlan>();
      return Status(Tag::kChainBroken, MissingKey() + ": missing; snapshot " + snapshot_.key +
                                           " is usable from txid " + Number(snapshot_.usable_from) +
                                           ", but the log ends at txid " + Number(history_.tip));
    }

    const Points points(snapshot_, log_, history_);
    auto point = FindTarget(points);
    if (!point.ok()) return point.status();
    if (!point->has_value()) return std::optional<RestorePlan>();
    return std::optional(PlanFor(**point));
  }

 private:
  // How much of the log speaks about the target: all, or up to where a later epoch rewinds over it.
  size_t EndOfTargetsHistory() const {
    const auto end = std::find_if(log_.entries.begin(), log_.entries.end(), [this](const auto& e) {
      return EndsTargetsEpoch(e.header) && e.header.continues_from < TargetsTxid();
    });
    return static_cast<size_t>(end - log_.entries.begin());
  }
  bool EndsTargetsEpoch(const ObjectHeader& h) const {
    switch (target_.kind) {
      case RestoreTarget::Kind::kPosition:
        return h.kind == ObjectKind::kFence && h.epoch > target_.position.epoch;
      case RestoreTarget::Kind::kLabel:
        return h.kind == ObjectKind::kFence && h.epoch > snapshot_.epoch;
      default:
        return false;
    }
  }
  Txid TargetsTxid() const {
    return target_.kind == RestoreTarget::Kind::kPosition ? target_.position.txid
                                                          : snapshot_.usable_from;
  }

  Result<std::optional<Point>> FindTarget(const Points& points) const {
    switch (target_.kind) {
      case RestoreTarget::Kind::kLatest:
        if (beyond_) return Hole();
        return points.LastRestorable(history_.tip);
      case RestoreTarget::Kind::kTime:
        return FindTime(points);
      case RestoreTarget::Kind::kTxid:
        return FindTxid(points, target_.txid);
      case RestoreTarget::Kind::kPosition:
        return FindPosition(points);
      case RestoreTarget::Kind::kLabel:
        break;
    }
    auto point = points.At(snapshot_.usable_from);
    if (!point.ok()) return point.status();
    if (point->history_hash != snapshot_.usable_history_hash) {
      return Status(Tag::kChainBroken, snapshot_.key +
                                           ": the manifest names another history at txid " +
                                           Number(point->txid) + " than the log");
    }
    if (!point->restorable) return NotARestorePoint(points, *point);
    return std::optional(*point);
  }

  Result<std::optional<Point>> FindTime(const Points& points) const {
    auto point = points.LastRestorable(history_.tip, target_.time_ms);
    if (!point.ok()) return point.status();
    if (beyond_) {
      auto tip_time = points.TipTime();
      if (!tip_time.ok()) return tip_time.status();
      if (*tip_time <= target_.time_ms) return Hole();
    }
    return *point;
  }

  Result<std::optional<Point>> FindTxid(const Points& points, Txid txid) const {
    if (txid > history_.tip) {
      if (beyond_) return Hole();
      auto newest = points.LastRestorable(history_.tip);
      if (!newest.ok()) return newest.status();
      std::string message = "no restore point at " + target_.ToString() +
                            ": the log ends at txid " + Number(history_.tip);
      if (*newest) message += "; the newest is " + Describe(manifest_.lineage, **newest);
      return Status(Tag::kNoSuchPoint, message);
    }
    auto point = points.At(txid);
    if (!point.ok()) return point.status();
    if (!point->restorable) return NotARestorePoint(points, *point);
    return std::optional(*point);
  }

  Result<std::optional<Point>> FindPosition(const Points& points) const {
    const Position& p = target_.position;
    const auto end = std::find_if(log_.entries.begin(), log_.entries.end(),
                                  [this](const auto& e) { return EndsTargetsEpoch(e.header); });
    const auto lost = [&](const std::string& why) {
      return Status(Tag::kPositionLost, "position " + p.ToString() + ": " + why);
    };
    if (p.txid <= history_.tip) {
      auto point = points.At(p.txid);
      if (!point.ok()) return point.status();
      if (CheckOf(point->history_hash) != p.check) {
        return lost("the history has another transaction there: " +
                    Describe(manifest_.lineage, *point));
      }
    } else if (end != log_.entries.end()) {
      return lost("epoch " + std::to_string(p.epoch.value) + " ended at txid " +
                  Number(end->header.last_txid));
    }
    return FindTxid(points, p.txid);
  }

  Status NotARestorePoint(const Points& points, const Point& point) const {
    if (beyond_) return Hole();  // which may hide what proves it
    auto lower = points.LastRestorable(point.txid);
    if (!lower.ok()) return lower.status();
    auto upper = points.FirstRestorableAbove(point.txid);
    if (!upper.ok()) return upper.status();
    std::string message = target_.ToString() +
                          " is not a restore point: its whole content was not proven (a heal or a "
                          "scan was under way)";
    if (*lower) message += "; the nearest before is " + Describe(manifest_.lineage, **lower);
    if (*upper) message += "; the nearest after is " + Describe(manifest_.lineage, **upper);
    return Status(Tag::kNoSuchPoint, message);
  }

  Status Hole() const {
    return Status(Tag::kChainBroken, MissingKey() + ": missing, but slot " +
                                         std::to_string(beyond_->value) +
                                         " comes after it; points up to txid " +
                                         Number(history_.tip) + " can still be restored by number");
  }
  std::string MissingKey() const {
    const SegmentRecord* segment = SegmentOver(manifest_, next_);
    return segment ? segment->key : LogKey(next_);
  }

  RestorePlan PlanFor(const Point& point) const {
    RestorePlan plan{.snapshot = snapshot_,
                     .steps = {},
                     .target = point.txid,
                     .epoch = point.epoch,
                     .history_hash = point.history_hash,
                     .time_ms = point.time_ms,
                     .rolling_known = !point.in_snapshot,
                     .rolling_checksum = point.rolling_checksum,
                     .database_pages = point.database_pages};
    for (const Run& run : history_.runs) {
      if (run.first > point.txid) break;
      plan.steps.push_back({.slot = log_.entries[run.entry].header.slot,
                            .first = run.first,
                            .last = std::min(run.last, point.txid)});
    }
    return plan;
  }

  const Manifest& manifest_;
  const SnapshotRecord& snapshot_;
  const WalkedLog& log_;
  const RestoreTarget& target_;
  History history_;
  bool whole_log_ = false;      // the history is that of the tip, not of before a rewind
  Slot next_;                   // the first slot the walk did not find
  std::optional<Slot> beyond_;  // a slot behind it that must exist
};

Status NoLabel(const Manifest& m, const std::string& label) {
  std::string message = "no snapshot has the label \"" + label + "\"";
  std::string labels;
  for (const SnapshotRecord& s : m.snapshots) {
    if (!s.label.empty() && labels.size() < 200) {
      labels += (labels.empty() ? "\"" : ", \"") + s.label + "\"";
    }
  }
  return Status(Tag::kNoSuchPoint, message + (labels.empty() ? "" : "; there are " + labels));
}

}  // namespace

Result<RestoreTarget> RestoreTarget::Parse(std::string_view at) {
  RestoreTarget target;
  if (at.empty()) return target;
  if (at.starts_with(kLabelPrefix)) {
    target.kind = Kind::kLabel;
    target.label = at.substr(kLabelPrefix.size());
    if (target.label.empty()) return Status(Tag::kBadArgument, "at: the label is empty");
    return target;
  }
  if (at.find_first_not_of("0123456789") == std::string_view::npos) {
    target.kind = Kind::kTxid;
    const auto [end, error] = std::from_chars(at.data(), at.data() + at.size(), target.txid.value);
    if (error != std::errc() || end != at.data() + at.size()) {
      return Status(Tag::kBadArgument, "at: no txid is as large as " + std::string(at));
    }
    return target;
  }
  if (const auto position = Position::Parse(at)) {
    target.kind = Kind::kPosition;
    target.position = *position;
    return target;
  }
  if (const auto time_ms = ParseTime(at)) {
    target.kind = Kind::kTime;
    target.time_ms = *time_ms;
    return target;
  }
  return Status(Tag::kBadArgument,
                "at: \"" + std::string(at) +
                    "\" is neither a txid, a position, label:…, nor a time such as "
                    "2026-11-23T15:00:00Z or 2026-11-23 15:00:00 (UTC)");
}

std::string RestoreTarget::ToString() const {
  switch (kind) {
    case Kind::kTxid:
      return "txid " + Number(txid);
    case Kind::kPosition:
      return "position " + position.ToString();
    case Kind::kTime:
      return FormatTime(time_ms);
    case Kind::kLabel:
      return std::string(kLabelPrefix) + label;
    case Kind::kLatest:
      break;
  }
  return "the latest point";
}

std::optional<LogRange> NeededLog(const Manifest& manifest, const SnapshotRecord& snapshot,
                                  const RestoreTarget& target) {
  if (IsTarget(snapshot, target)) return std::nullopt;
  if (HasLog(manifest, snapshot)) return LogRange{snapshot.first_slot, std::nullopt};
  if (Alone(snapshot)) return std::nullopt;
  return LogRange{snapshot.first_slot, snapshot.end_slot};
}

Result<std::vector<SnapshotRecord>> SnapshotsFor(const Manifest& m, const RestoreTarget& target) {
  if (target.kind == RestoreTarget::Kind::kPosition) {
    const Position& p = target.position;
    if (p.lineage != m.lineage) {
      return Status(Tag::kPositionLost,
                    "position " + p.ToString() + " is of another database's history than " +
                        Position{m.lineage, {}, {}, 0}.ToString().substr(0, 16));
    }
    if (p.epoch > m.epoch) {
      return Status(Tag::kPositionLost, "position " + p.ToString() + ": the newest epoch is " +
                                            std::to_string(m.epoch.value));
    }
  }
  // In the order they were made, which txids need not have once a history was rewound.
  std::vector<SnapshotRecord> usable = m.snapshots;
  std::stable_sort(usable.begin(), usable.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first_slot, a.usable_from) > std::pair(b.first_slot, b.usable_from);
  });
  if (usable.empty()) {
    return Status(Tag::kNoBackup,
                  "the first snapshot is not finished: nothing can be restored yet");
  }

  std::vector<SnapshotRecord> chosen;
  const auto choose = [&](const std::function<bool(const SnapshotRecord&)>& fits) {
    std::copy_if(usable.begin(), usable.end(), std::back_inserter(chosen), fits);
  };
  switch (target.kind) {
    case RestoreTarget::Kind::kLatest:
      // Without its log a snapshot says nothing about what came after.
      choose([&](const auto& s) { return HasLog(m, s); });
      if (chosen.empty()) {
        return Status(Tag::kNoBackup, "the log of every snapshot is gone; by number there is" +
                                          NearestSnapshots(m, target));
      }
      break;
    case RestoreTarget::Kind::kTxid:
      choose([&](const auto& s) {
        if (!HasLog(m, s)) return s.usable_from == target.txid && SurvivedItsEpoch(m, s);
        return s.usable_from <= target.txid;
      });
      if (chosen.empty()) {
        return Status(Tag::kNoSuchPoint,
                      "no restore point at " + target.ToString() + NearestSnapshots(m, target));
      }
      break;
    case RestoreTarget::Kind::kTime:
      choose([&](const auto& s) {
        if (s.time_ms > target.time_ms) return false;
        return HasLog(m, s) || (SurvivedItsEpoch(m, s) && IsStateAt(m, s, target.time_ms));
      });
      if (chosen.empty()) {
        return Status(Tag::kNoSuchPoint, "no restore point at " + target.ToString() +
                                             ": the log of that time is not kept" +
                                             NearestSnapshots(m, target));
      }
      break;
    case RestoreTarget::Kind::kPosition: {
      const Position& p = target.position;
      // A snapshot that is the target proves it alone, even where the log could not.
      choose([&](const auto& s) { return IsTarget(s, target); });
      choose([&](const auto& s) {
        return s.epoch <= p.epoch && s.usable_from <= p.txid &&
               (HasLog(m, s) || s.usable_from == p.txid);
      });
      // A later epoch may have begun with a snapshot of exactly this point.
      choose(
          [&](const auto& s) { return s.epoch > p.epoch && s.usable_from == p.txid && Alone(s); });
      if (chosen.empty()) {
        return Status(Tag::kNoSuchPoint,
                      "no restore point at " + target.ToString() + NearestSnapshots(m, target));
      }
      break;
    }
    case RestoreTarget::Kind::kLabel:
      choose([&](const auto& s) { return s.label == target.label; });
      if (chosen.empty()) return NoLabel(m, target.label);
      chosen.resize(1);
      break;
  }
  return chosen;
}

Result<std::optional<RestorePlan>> PlanRestore(const Manifest& manifest,
                                               const SnapshotRecord& snapshot, const WalkedLog& log,
                                               const RestoreTarget& target) {
  return Planner(manifest, snapshot, log, target).Plan();
}

Status NoPlan(const Manifest& m, const RestoreTarget& target) {
  const std::string why = "no snapshot that is kept belongs to the history of " + target.ToString();
  if (target.kind == RestoreTarget::Kind::kPosition) return Status(Tag::kPositionLost, why);
  return Status(Tag::kNoSuchPoint, why + NearestSnapshots(m, target));
}

}  // namespace guildlite
