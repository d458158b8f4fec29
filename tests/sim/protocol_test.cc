// The protocol as a whole, explored: three writers that take the log from each other, die, stall
// and are misled about their requests, joins, retirement and deletion all the while, and a reader
// who restores. The code is the real one (writer.h says what is not); the world is simulated
// (scheduler.h), and so a seed replays exactly. history.h judges.
//
// Each mutant (mutants.h) breaks one rule of the protocol; the same exploration must find out.
//
//   GUILDLITE_SEED=n        that seed alone; what happened last is told if it fails, or is a mutant
//   GUILDLITE_SIM_SEEDS=n   so many seeds without a mutant, from GUILDLITE_SEED or 1 on
//   GUILDLITE_SIM_DEPTH=n   so many deviations more where every order is tried
//   GUILDLITE_SIM_TRACE=1   all that happens, to stderr
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/history.h"
#include "tests/sim/mutants.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/writer.h"
#include "tests/support/temp_dir.h"
#include "vfs/restore/restorer.h"

namespace guildlite::testing {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

struct Outcome {
  std::string violation;  // "" = none
  uint64_t digest = 0;
  std::string tail;  // the last of what happened
  uint64_t steps = 0;
  uint64_t acknowledgements = 0;
  uint64_t restores = 0;
  uint64_t takeovers = 0;
  uint64_t joins = 0;
};

class Simulation {
 public:
  // `aimed_at`: the world is one in which breaking that rule does harm before long.
  Simulation(uint64_t seed, Mutant mutant, const std::string& directory,
             Mutant aimed_at = Mutant::kNone)
      : mutant_(mutant), directory_(directory), scheduler_(seed, Weather()) {
    SimRandom& random = scheduler_.random;
    const auto one_of = [&](std::initializer_list<uint64_t> all) {
      return *(all.begin() + random.Below(all.size()));
    };
    // Worlds differ: what is rare in one is common in another.
    scheduler_.weather.fault = one_of({0, 0, 10, 30});
    scheduler_.weather.late_answer = one_of({0, 2, 4});
    scheduler_.weather.stall = one_of({0, 0, 12, 40});
    scheduler_.weather.stall_steps = one_of({10, 60, 300});
    const std::vector<Weather::Kind> kinds{
        {"", 0, ""},
        {".claim", 'P', "log/"},
        {".claim", 'P', "manifest"},
        {".ship", 'P', "log/"},
        {".snapshot", 'P', ""},
        {".snapshot", 'P', "manifest"},
        {".compact", 'P', "manifest"},
        {".sweep", 'D', ""},
        {"reader", 'G', "log/"},
        {"reader", 'G', "s"},
    };
    scheduler_.weather.stalled = kinds[random.Below(kinds.size())];
    scheduler_.weather.faulty = kinds[random.Below(kinds.size())];
    length_ = 150 + random.Below(500);
    event_every_ = one_of({6, 12, 25});
    writers_at_once_ = one_of({1, 2, 3});
    settings_.ship.sync_interval_ms = static_cast<int64_t>(one_of({0, 1, 10}));
    settings_.ship.body_max = one_of({1, 8 << 20});
    settings_.snapshot.snapshot_min_bytes = one_of({200, 2000, 100000});
    settings_.compact.join_slots = one_of({2, 2, 3, 6, 20});
    settings_.compact.segment_bytes = one_of({1000, 4 << 20});
    settings_.sweep.grace_ms = static_cast<int64_t>(one_of({0, 1, 30, 200}));
    settings_.retry.deadline_ms = 60;
    settings_.retry.first_backoff_ms = 5;
    settings_.retry.backoff_ms_max = 20;
    settings_.retrying = random.OneIn(2);
    if (aimed_at == Mutant::kNoReread || aimed_at == Mutant::kFencesSwept) {
      // A claim that is late with its FENCE, and its slot joined and deleted meanwhile.
      scheduler_.weather.stalled = {".claim", 'P', "log/"};
      settings_.compact.join_slots = 2;
      settings_.sweep.grace_ms = 0;
      settings_.ship.sync_interval_ms = 0;
      settings_.ship.body_max = 1;
      writers_at_once_ = 3;
      event_every_ = 6;
    }
    for (int i = 0; i < 3; ++i) {
      disks_.push_back(std::make_unique<Disk>(std::string(1, static_cast<char>('a' + i)),
                                              directory_, random.Next64()));
      writers_.emplace_back();
    }
    scheduler_.bucket.on_put = [this](std::string_view key, std::string_view bytes) {
      OnPut(key, bytes);
    };
  }
  // A small world in fair weather: see TwoTakeovers().
  Simulation(Mutant mutant, const std::string& directory) : Simulation(1, mutant, directory) {
    scheduler_.weather = Weather();
    settings_ = WriterSettings();
    settings_.ship.sync_interval_ms = 0;
    settings_.ship.body_max = 1;
    settings_.compact.join_slots = 2;
    settings_.sweep.grace_ms = 0;
    settings_.retrying = false;
  }
  ~Simulation() {
    reader_.reset();
    writers_.clear();
  }

  Outcome Run() {
    reader_ = std::make_unique<Strand>(scheduler_, "reader", [this] { ReadForEver(); });
    while (scheduler_.step() < length_ && Fine()) {
      if (scheduler_.random.OneIn(event_every_)) Event();
      Step();
    }
    if (Fine()) Calm();
    outcome_.violation = history_.violation();
    outcome_.digest = scheduler_.digest();
    outcome_.steps = scheduler_.step();
    outcome_.acknowledgements = history_.acknowledged().size();
    outcome_.tail = scheduler_.Tail();
    return outcome_;
  }

  // One writer has two commits to ship, two others take the log from it at the same time, and
  // `choose` decides.
  Outcome TwoTakeovers(const std::function<size_t(size_t)>& choose) {
    Start(0);
    for (int commits = 0; commits < 2 && Fine();) {
      Step();
      if (!writers_[0]->begun() || !(commits == 0 || writers_[0]->settled())) continue;
      writers_[0]->Commit();
      ++commits;
    }
    writers_[0]->Commit();
    scheduler_.choose = choose;
    Start(1);
    Start(2);
    for (int n = 0; n < 300 && Fine(); ++n) {
      Step();
      // Whoever has the log commits, so that something is acknowledged.
      for (size_t i : {1, 2}) {
        if (writers_[i]->begun() && commits_[i]++ < 2) writers_[i]->Commit();
      }
    }
    scheduler_.choose = nullptr;
    if (Fine()) Calm();
    outcome_.violation = history_.violation();
    outcome_.tail = scheduler_.Tail();
    return outcome_;
  }

 private:
  bool Fine() const { return history_.violation().empty(); }

  void Step() {
    scheduler_.Step();
    for (const auto& w : writers_) {
      if (w) w->Watch();
    }
  }

  // What users and machines do.
  void Event() {
    SimRandom& random = scheduler_.random;
    const size_t i = random.Below(writers_.size());
    auto& writer = writers_[i];
    if (!writer) {
      size_t alive = 0;
      for (const auto& w : writers_) alive += w && !w->over() ? 1 : 0;
      if (alive < writers_at_once_ || random.OneIn(20)) Start(i);
      return;
    }
    switch (random.Below(16)) {
      case 0:
        scheduler_.Note("kill " + writer->name());
        writer.reset();
        break;
      case 1:
        writer->Checkpoint();
        break;
      case 2:
        writer->Snapshot();
        break;
      case 3:
        scheduler_.Note("stall " + writer->name());
        scheduler_.StallAll(writer->strands(), 1 + random.Below(200));
        break;
      default:
        if (writer->over() && random.OneIn(3)) {
          writer.reset();
        } else {
          writer->Commit();
        }
        break;
    }
  }

  void Start(size_t i) {
    scheduler_.Note("start " + disks_[i]->name);
    const auto skew = static_cast<int64_t>(scheduler_.random.Below(200)) - 100;
    writers_[i] =
        std::make_unique<Writer>(scheduler_, history_, *disks_[i], settings_, mutant_, skew);
  }

  // Everything heals: one writer is left alone, and must come to rest with all of it restorable.
  void Calm() {
    scheduler_.weather = Weather();
    scheduler_.Note("calm");
    size_t last = scheduler_.random.Below(writers_.size());
    for (size_t i = 0; i < writers_.size(); ++i) {
      if (writers_[i] && (i != last || writers_[i]->over() || scheduler_.random.OneIn(2))) {
        // What it was in the middle of comes to its end, or does not.
        if (scheduler_.random.OneIn(2)) {
          scheduler_.EndStalls();
          for (int n = 0; n < 100 && Fine(); ++n) Step();
        }
        writers_[i].reset();
      }
    }
    scheduler_.EndStalls();
    if (!writers_[last]) Start(last);
    bool committed = false;
    bool restarted = false;
    for (int n = 0; Fine() && !(committed && writers_[last]->settled()); ++n) {
      Step();
      if (!committed && writers_[last]->begun()) {
        writers_[last]->Commit();
        committed = true;
      }
      if (!restarted && (writers_[last]->over() || n == 2000)) {
        // One that is dead now had the log; or the manifest alone, and the FENCE never came: then
        // this one ships on, but can take no snapshot.
        restarted = true;
        writers_[last].reset();
        Start(last);
        committed = false;
      } else if (writers_[last]->over()) {
        history_.Violated("the log cannot be taken over any more");
      } else if (n == 5000) {
        history_.Violated("a writer left alone does not come to rest");
      }
    }
    while (scheduler_.late() > 0) scheduler_.LandLate();
    for (int n = 0; n < 200 && Fine(); ++n) Step();
    if (Fine()) Judge(*writers_[last]);
  }

  // What the bucket holds in the end.
  void Judge(Writer& owner) {
    Bucket& bucket = scheduler_.bucket;
    Read(bucket, {}, "the last restore");
    auto at = ReadManifest(bucket);
    if (!at.ok()) {
      history_.Violated("the manifest: " + at.status().ToString());
      return;
    }
    const Manifest& m = at->manifest;
    outcome_.takeovers = m.epoch.value - 1;
    outcome_.joins = m.segments.size();
    for (const SnapshotRecord& s : m.snapshots) {
      Read(bucket,
           {.kind = RestoreTarget::Kind::kPosition,
            .position = {m.lineage, s.epoch, s.usable_from,
                         static_cast<uint32_t>(s.usable_history_hash)}},
           "a restore of snapshot " + s.key);
    }
    std::map<Epoch, Acknowledgement> samples;
    for (const Acknowledgement& a : history_.acknowledged()) {
      // As a wait for a position is judged: the epoch goes on, or its end is at or above.
      if (a.epoch > owner.epoch()) {
        history_.Violated("epoch " + std::to_string(a.epoch.value) + " never was");
      } else if (a.epoch < owner.epoch()) {
        const PastEpoch& past = m.past_epochs[a.epoch.value - 1];
        if (a.state.txid > past.last_txid.value) {
          history_.Violated(a.who + " acknowledged " + a.state.ToString() + " in epoch " +
                            std::to_string(a.epoch.value) + ", which is lost: it ended at txid " +
                            std::to_string(past.last_txid.value));
        }
      }
      if (!m.snapshots.empty() && a.state.txid >= m.snapshots.front().usable_from.value &&
          scheduler_.random.OneIn(2)) {
        samples[a.epoch] = a;
      }
    }
    for (const auto& [epoch, a] : samples) {
      Read(
          bucket,
          {.kind = RestoreTarget::Kind::kPosition,
           .position = {m.lineage, epoch, Txid(a.state.txid), static_cast<uint32_t>(a.state.hash)}},
          "a restore of acknowledged " + a.state.ToString());
    }
  }

  // One restore; with faults of the store it may fail, but not with anything else.
  void Read(ObjectStore& store, const RestoreTarget& target, const std::string& who) {
    const auto due = history_.newest();
    const std::string path = directory_ + "/restored-" + std::to_string(++restores_);
    auto report = Restore(store, path, target, {.random = &names_});
    if (!report.ok()) {
      const Tag tag = report.status().tag();
      const bool fault = tag == Tag::kStoreUnreachable || tag == Tag::kStoreThrottled ||
                         tag == Tag::kOutcomeUnknown || tag == Tag::kTimeout;
      if (!fault && (due || (tag != Tag::kNoBackup && tag != Tag::kNoSuchPoint))) {
        history_.Violated(who + ": " + report.status().ToString());
      }
      return;
    }
    ++outcome_.restores;
    const std::string content = *ReadWholeFile(path);
    Must(RemoveFile(path));
    const bool latest = target.kind == RestoreTarget::Kind::kLatest;
    scheduler_.Note(who + " has txid " + std::to_string(report->position.txid.value));
    history_.Restored(report->position.txid, report->position.check, content, due, latest, who);
  }

  void ReadForEver() {
    SimStore store(scheduler_);
    MutantStore mutant(store, mutant_, Role::kReader, {.scheduler = &scheduler_});
    for (;;) {
      scheduler_.Sleep(static_cast<int64_t>(scheduler_.random.Below(60)));
      Read(mutant, {}, "reader");
    }
  }

  // Every object of the log says where it ends, and what it follows.
  void OnPut(std::string_view key, std::string_view bytes) {
    if (!ParseLogKey(key)) return;
    const auto object = OpenObject(bytes, key);
    if (!object.ok()) return;
    const ObjectHeader& h = object->header;
    const StateName end{h.last_txid.value, h.history_hash};
    if (const auto it = ends_.find(h.previous_hash); it != ends_.end() && !history_.Knows(end)) {
      history_.Captured(end, it->second, nullptr);
    }
    ends_[object->object_hash] = end;
  }

  const Mutant mutant_;
  const std::string directory_;
  Scheduler scheduler_;
  History history_;
  WriterSettings settings_;
  uint64_t length_ = 0;
  uint64_t event_every_ = 0;
  uint64_t writers_at_once_ = 0;
  std::map<size_t, int> commits_;
  std::vector<std::unique_ptr<Disk>> disks_;
  std::vector<std::unique_ptr<Writer>> writers_;
  std::unique_ptr<Strand> reader_;
  std::map<uint64_t, StateName> ends_;  // by the hash of the object
  SimRandom names_{1};
  uint64_t restores_ = 0;
  Outcome outcome_;
};

Outcome Simulate(uint64_t seed, Mutant mutant, Mutant aimed_at = Mutant::kNone) {
  const TempDir directory(TempDir::Where::kMemory);
  return Simulation(seed, mutant, directory.path(), aimed_at).Run();
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

TEST(ProtocolTest, KeepsItsPromisesWhateverHappens) {
  const uint64_t first = FromEnvironment("GUILDLITE_SEED", 1);
  const uint64_t seeds = FromEnvironment("GUILDLITE_SIM_SEEDS", std::getenv("GUILDLITE_SEED") ? 1
                                                                : kSanitized                  ? 40
                                                                             : 1000);
  Outcome all;
  const std::clock_t began = std::clock();
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    const Outcome o = Simulate(seed, Mutant::kNone);
    ASSERT_EQ(o.violation, "") << "GUILDLITE_SEED=" << seed << ", after\n" << o.tail;
    all.steps += o.steps;
    all.acknowledgements += o.acknowledgements;
    all.restores += o.restores;
    all.takeovers += o.takeovers;
    all.joins += o.joins;
  }
  const double seconds = static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
  std::cout << seeds << " seeds, " << all.steps << " steps, " << all.acknowledgements
            << " acknowledgements, " << all.restores << " restores, " << all.takeovers
            << " takeovers, " << all.joins << " segments; "
            << static_cast<uint64_t>(static_cast<double>(seeds) / seconds * 3600)
            << " seeds per CPU-hour\n";
}

// Every run of TwoTakeovers() with at most `deviations` choices other than 0, each once, until one
// finds something. `chosen` is what the first run has to begin with.
struct Exploration {
  Mutant mutant = Mutant::kNone;
  size_t deviations = 1;
  bool faults = true;  // else only the order is explored
  uint64_t runs = 0;
  std::string violation;

  bool Run(const std::vector<size_t>& chosen, size_t deviated) {
    std::vector<size_t> choices;
    const TempDir directory(TempDir::Where::kMemory);
    Simulation simulation(mutant, directory.path());
    const Outcome o = simulation.TwoTakeovers([&](size_t n) {
      choices.push_back(n == 2 || faults ? n : 1);
      return choices.size() <= chosen.size() ? chosen[choices.size() - 1] : 0;
    });
    ++runs;
    if (!o.violation.empty()) {
      violation = o.violation + ", chosen:";
      for (const size_t c : chosen) violation += " " + std::to_string(c);
      violation += ", after\n" + o.tail;
      return false;
    }
    if (deviated == deviations) return true;
    for (size_t i = chosen.size(); i < choices.size(); ++i) {
      std::vector<size_t> next = chosen;
      next.resize(i + 1, 0);
      for (next[i] = 1; next[i] < choices[i]; ++next[i]) {
        if (!Run(next, deviated + 1)) return false;
      }
    }
    return true;
  }
};

TEST(ProtocolTest, KeepsItsPromisesInEveryOrderOfTwoTakeovers) {
  const auto more = FromEnvironment("GUILDLITE_SIM_DEPTH", 0);
  Exploration faults{.deviations = kSanitized ? 0 : 2 + more};
  EXPECT_TRUE(faults.Run({}, 0)) << faults.violation;
  Exploration orders{.deviations = kSanitized ? 1 : 2 + more, .faults = false};
  EXPECT_TRUE(orders.Run({}, 0)) << orders.violation;
  std::cout << faults.runs << " runs with " << faults.deviations << " deviations, " << orders.runs
            << " in other orders\n";
}

TEST(ProtocolTest, ASeedReplaysExactly) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    EXPECT_EQ(Simulate(seed, Mutant::kNone).digest, Simulate(seed, Mutant::kNone).digest) << seed;
  }
}

class BrokenProtocol : public ::testing::TestWithParam<Mutant> {};

TEST_P(BrokenProtocol, IsFoundOut) {
  const bool one = std::getenv("GUILDLITE_SEED") != nullptr;
  const uint64_t first = FromEnvironment("GUILDLITE_SEED", 1);
  const uint64_t seeds = one ? 1 : kSanitized ? 5 : 3000;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    const Outcome o = Simulate(seed, GetParam(), GetParam());
    if (o.violation.empty()) continue;
    std::cout << "GUILDLITE_SEED=" << seed << ": " << o.violation << "\n" << (one ? o.tail : "");
    // It is the rule that was missing, not that world.
    const Outcome kept = Simulate(seed, Mutant::kNone, GetParam());
    EXPECT_EQ(kept.violation, "") << "GUILDLITE_SEED=" << seed << ", after\n" << kept.tail;
    return;
  }
  // Under a sanitizer there is time to look for errors in the code, not for what they do.
  if (one || kSanitized) return;
  FAIL() << "nobody noticed in " << seeds << " seeds";
}

// Found without chance, too.
TEST(ProtocolTest, AFewDeviationsFindWhatATakeoverMustNotLeaveOut) {
  if (kSanitized) return;  // IsFoundOut says why
  for (const Mutant mutant : {Mutant::kNoFence, Mutant::kTwoInFlight, Mutant::kExistsIsOurs}) {
    Exploration orders{.mutant = mutant, .deviations = 2};
    EXPECT_FALSE(orders.Run({}, 0)) << NameOf(mutant);
    std::cout << NameOf(mutant) << ": " << orders.runs << " runs, "
              << orders.violation.substr(0, orders.violation.find(", after")) << "\n";
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, BrokenProtocol,
                         ::testing::Values(Mutant::kNoReread, Mutant::kNoFence,
                                           Mutant::kFencesSwept, Mutant::kTwoInFlight,
                                           Mutant::kSkipsSlot, Mutant::kStaleTipForRestore,
                                           Mutant::kStaleTipForClaim, Mutant::kSameNonce,
                                           Mutant::kSweepsOwnEpoch, Mutant::kLogOverwrites,
                                           Mutant::kSwapsBlindly, Mutant::kSilenceIsConsent,
                                           Mutant::kExistsIsOurs, Mutant::kDurableTooEarly,
                                           Mutant::kJoinedGoAtOnce, Mutant::kUnknownSwapFailed),
                         [](const auto& of) { return std::string(NameOf(of.param)); });

}  // namespace
}  // namespace guildlite::testing
