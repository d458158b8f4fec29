// What the simulated world knows and no writer does: every state that was ever captured, with what
// it goes on from and its content, and every state that was acknowledged. It judges.
//
//   one history       of two acknowledged states one goes on from the other
//   kept              a restore of "latest" that began after an acknowledgement goes through it
//   proven            what is restored is, byte for byte, what was committed at that txid
//
// It knows nothing of slots, epochs, fences or manifests.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "guildlite/types.h"
#include "vfs/capture/page_table.h"

namespace guildlite::testing {

struct StateName {
  uint64_t txid = 0;
  uint64_t hash = 0;
  auto operator<=>(const StateName&) const = default;
  std::string ToString() const {
    char text[64];
    snprintf(text, sizeof text, "%llu/%08x", static_cast<unsigned long long>(txid),
             static_cast<uint32_t>(hash));
    return text;
  }
};
inline StateName NameOf(const CapturedState& s) { return {s.txid.value, s.history_hash}; }

struct Acknowledgement {
  StateName state;
  Epoch epoch;
  std::string who;
};

class History {
 public:
  // The first trouble found; "" = none.
  const std::string& violation() const { return violation_; }
  void Violated(const std::string& what) {
    if (violation_.empty()) violation_ = what;
  }

  // `state` was captured right after `parent`, or some states after it that nobody looked at.
  // `content`: of the database then; null where it is none that anybody committed (inside a heal).
  void Captured(const StateName& state, const std::optional<StateName>& parent,
                std::shared_ptr<const std::string> content) {
    Node& node = nodes_[state];
    if (!node.parent && parent && *parent != state) node.parent = parent;
    if (!node.content) node.content = std::move(content);
  }
  // `state` stands for this content from now on.
  void Replaced(const StateName& state, std::shared_ptr<const std::string> content) {
    nodes_[state].content = std::move(content);
  }
  bool Knows(const StateName& state) const { return nodes_.contains(state); }
  std::shared_ptr<const std::string> Content(const StateName& state) const {
    const auto it = nodes_.find(state);
    return it == nodes_.end() ? nullptr : it->second.content;
  }

  void Acknowledged(const StateName& state, Epoch epoch, const std::string& who) {
    acknowledged_.push_back({state, epoch, who});
    if (!newest_) {
      newest_ = state;
      return;
    }
    const bool forward = state.txid >= newest_->txid;
    if (!GoesThrough(forward ? state : *newest_, forward ? *newest_ : state)) {
      Violated("a fork: " + who + " has acknowledged " + state.ToString() + ", and " +
               newest_->ToString() + " is acknowledged");
    }
    if (forward) newest_ = state;
  }
  const std::optional<StateName>& newest() const { return newest_; }
  const std::vector<Acknowledgement>& acknowledged() const { return acknowledged_; }

  // A restore ended at this txid, with a history whose low 32 bits are `check`; `due` was
  // acknowledged before it began. `latest`: it was asked for no point in particular.
  void Restored(Txid txid, uint32_t check, const std::string& content,
                const std::optional<StateName>& due, bool latest, const std::string& who) {
    const auto it = Find(txid, check);
    const std::string name = std::to_string(txid.value);
    if (it == nodes_.end()) {
      Violated(who + " has restored txid " + name + " of a history that nobody wrote");
      return;
    }
    if (!it->second.content) {
      Violated(who + " has restored txid " + name + ", which was never a state of a database");
    } else if (*it->second.content != content) {
      Violated(who + " has restored txid " + name + " with other content than was committed");
    }
    if (!due || !latest) return;
    if (it->first.txid < due->txid) {
      Violated(who + " has restored txid " + name + " as the newest, although " + due->ToString() +
               " was acknowledged before");
    } else if (!GoesThrough(it->first, *due)) {
      Violated(who + " has restored txid " + name + " of a history without " + due->ToString() +
               ", which was acknowledged before");
    }
  }

  // Whether `state` is `earlier` or goes on from it.
  bool GoesThrough(const StateName& state, const StateName& earlier) const {
    const auto at = DownTo(state, earlier.txid);
    if (!at) return false;
    // Below it: nobody looked in between, so it is enough that `earlier` is on the same branch.
    return *at == earlier || (at->txid < earlier.txid && DownTo(earlier, at->txid) == at);
  }

 private:
  struct Node {
    std::optional<StateName> parent;
    std::shared_ptr<const std::string> content;
  };
  // The last state at or below `txid` on the way to `state`.
  std::optional<StateName> DownTo(StateName state, uint64_t txid) const {
    while (state.txid > txid) {
      const auto it = nodes_.find(state);
      if (it == nodes_.end() || !it->second.parent) return std::nullopt;
      state = *it->second.parent;
    }
    return state;
  }
  std::map<StateName, Node>::const_iterator Find(Txid txid, uint32_t check) const {
    for (auto it = nodes_.lower_bound({txid.value, 0});
         it != nodes_.end() && it->first.txid == txid.value; ++it) {
      if (static_cast<uint32_t>(it->first.hash) == check) return it;
    }
    return nodes_.end();
  }

  std::map<StateName, Node> nodes_;
  std::optional<StateName> newest_;  // acknowledged
  std::vector<Acknowledgement> acknowledged_;
  std::string violation_;
};

}  // namespace guildlite::testing
