// Who goes on next, and what becomes of each request: a simulated world on one thread.
//
// Whoever would be a thread is a Strand, code on a fiber. It runs alone until it asks the store for
// something or sleeps; then the scheduler picks, by the seed alone, which strand goes on, which
// request is carried out, which answer arrives. So a seed replays exactly.
//
// What may become of a request:
//   done, and answered at once, or later, others going on in between
//   not done, and known to be (or said to be) so: unreachable, 503
//   done, but the answer says 503; done, or not, and no answer (OUTCOME_UNKNOWN)
//   no answer, and done much later, if ever: the client has given up or is dead (puts, deletes)
//   done, and a duplicate of it much later
// and its strand may be stalled, before it is done or before it is answered, for a long time.
//
// Instead of by chance, `choose` decides where it is set: then the strands go on in the order they
// came up in, one until it has to wait, and each choice but 0 puts the next one behind all others,
// or has its put go wrong. So few choices other than 0 lead far.
//
// The bucket's versions are hashes of the content, as an ETag is: equal bytes are equal versions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "guildlite/object_store.h"
#include "tests/support/fiber.h"
#include "tests/support/sim_clock.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite::testing {

class Bucket : public ObjectStore {
 public:
  // Called when a put is done.
  std::function<void(std::string_view key, std::string_view bytes)> on_put;

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    const auto it = objects_.find(key);
    if (condition.kind == PutCondition::Kind::kCreate && it != objects_.end()) {
      return Status(Tag::kAlreadyExists, "put " + std::string(key) + ": it exists");
    }
    if (condition.kind == PutCondition::Kind::kMatch &&
        (it == objects_.end() || Version(it->second) != condition.version)) {
      return Status(Tag::kPrecondition, "put " + std::string(key) + ": it changed meanwhile");
    }
    if (on_put) on_put(key, bytes);
    objects_[std::string(key)] = bytes;
    return Version(bytes);
  }
  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    const auto it = objects_.find(key);
    if (it == objects_.end()) {
      return Status(Tag::kNotFound, "get " + std::string(key) + ": no such object");
    }
    const std::string& bytes = it->second;
    StoredObject object;
    object.size = bytes.size();
    object.version = Version(bytes);
    if (!range) {
      object.bytes = bytes;
    } else if (range->offset < bytes.size()) {
      object.bytes = bytes.substr(range->offset, range->length);
    }
    return object;
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    std::vector<ListEntry> entries;
    auto it =
        start_after < prefix ? objects_.lower_bound(prefix) : objects_.upper_bound(start_after);
    for (; it != objects_.end() && entries.size() < limit && it->first.starts_with(prefix); ++it) {
      entries.push_back({it->first, it->second.size()});
    }
    return entries;
  }
  Status Delete(std::string_view key) override {
    if (const auto it = objects_.find(key); it != objects_.end()) objects_.erase(it);
    return Status::Ok();
  }
  std::string Describe() const override { return "bucket"; }

 private:
  static std::string Version(std::string_view bytes) {
    return std::to_string(Hash64(AsBytes(bytes)));
  }
  std::map<std::string, std::string, std::less<>> objects_;
};

// How often what goes wrong, each as one in so many; 0: never. And one kind of request that has it
// worse than the others: what is rare in general is then common in some worlds.
struct Weather {
  struct Kind {
    std::string strand;  // its name ends so
    char kind = 0;       // 0: none
    std::string key;     // begins so
    bool Is(const std::string& name, char k, std::string_view asked) const {
      return kind != 0 && k == kind && name.ends_with(strand) && asked.starts_with(key);
    }
  };
  Kind stalled;  // every other one is, before it is done
  Kind faulty;   // every other one is

  uint64_t fault = 0;        // of a request
  uint64_t late_answer = 0;  // done now, answered after others went on
  uint64_t stall = 0;        // of a strand, at a request
  uint64_t stall_steps = 0;  // at most
};

class Scheduler;

class Strand {
 public:
  enum class State { kReady, kSleeping, kAsking, kAnswered, kIdle };

  Strand(Scheduler& scheduler, std::string name, std::function<void()> body);
  ~Strand();
  Strand(const Strand&) = delete;
  Strand& operator=(const Strand&) = delete;

  bool done() const { return fiber_.done(); }
  bool idle() const { return done() || state_ == State::kIdle; }
  const std::string& name() const { return name_; }
  // Ends a WaitUntil(), now or, if it is busy, the next one.
  void Wake() {
    woken_ = true;
    if (waiting_) state_ = State::kReady;
  }
  // As kill -9 of its process: what it has asked for may be done or not, now or later. No code of
  // its runs any more, but for destructors, which give back what the test would leak.
  void Kill();

 private:
  friend class Scheduler;
  struct Killed {};
  struct Request {
    char kind;  // P, G, L, D
    std::string_view key;
    const std::function<void()>& carry_out;
    const std::function<std::function<void()>()>& copy;  // to be carried out after it is gone
  };

  Scheduler& scheduler_;
  const std::string name_;
  State state_ = State::kReady;
  int64_t wake_ms_ = 0;
  bool woken_ = false;
  bool waiting_ = false;  // in WaitUntil()
  bool killed_ = false;
  uint64_t stalled_until_ = 0;  // a step
  const Request* request_ = nullptr;
  Status answer_;
  Fiber fiber_;
};

class Scheduler {
 public:
  Scheduler(uint64_t seed, Weather fair_weather) : weather(fair_weather), random(seed) {
    log_ = std::getenv("GUILDLITE_SIM_TRACE") != nullptr;
  }

  Bucket bucket;
  SimClock clock{1'790'000'000'000};
  Weather weather;
  SimRandom random;

  std::function<size_t(size_t choices)> choose;

  uint64_t step() const { return step_; }
  // Of everything that happened: two runs of a seed have the same.
  uint64_t digest() const { return digest_; }
  // The last of what happened, for people; all of it goes to stderr with GUILDLITE_SIM_TRACE set.
  const std::vector<std::string>& trace() const { return trace_; }
  void Note(const std::string& what) {
    digest_ = Hash64(AsBytes(what)) + 31 * digest_;
    std::string line = std::to_string(step_) + " " + what;
    if (log_) fprintf(stderr, "%s\n", line.c_str());
    if (trace_.size() < kTraceLines) {
      trace_.push_back(std::move(line));
    } else {
      trace_[trace_next_++ % kTraceLines] = std::move(line);
    }
  }
  std::string Tail() const {
    std::string text;
    for (size_t i = 0; i < trace_.size(); ++i) {
      text += "  " + trace_[(trace_next_ + i) % trace_.size()] + "\n";
    }
    return text;
  }

  // One thing happens: nullptr if there was nothing to do but wait, else the strand that ran last.
  Strand* Step() {
    ++step_;
    if (choose) return StepInOrder();
    if (random.OneIn(4)) clock.Advance(static_cast<int64_t>(random.Below(4)));
    if (!late_.empty() && random.OneIn(12)) {
      LandLate();
      return nullptr;
    }
    const int64_t now = clock.MonotonicMs();
    std::vector<Strand*>& able = able_;
    able.clear();
    int64_t next_ms = INT64_MAX;
    Strand* stalled = nullptr;
    for (Strand* s : strands_) {
      if (s->idle()) continue;
      if (s->state_ == Strand::State::kSleeping && s->wake_ms_ > now) {
        next_ms = std::min(next_ms, s->wake_ms_);
      } else if (s->stalled_until_ > step_) {
        if (!stalled || s->stalled_until_ < stalled->stalled_until_) stalled = s;
      } else {
        able.push_back(s);
      }
    }
    if (able.empty()) {
      if (stalled && (next_ms == INT64_MAX || random.OneIn(2))) {
        stalled->stalled_until_ = step_;
      } else if (next_ms != INT64_MAX) {
        clock.Advance(next_ms - now);
      }
      return nullptr;
    }
    Strand* const chosen = able[random.Below(able.size())];
    Advance(*chosen);
    return chosen;
  }
  // In the order they were made, until StepInOrder() changes it.
  Strand* StepInOrder() {
    int64_t next_ms = INT64_MAX;
    for (size_t i = 0; i < strands_.size(); ++i) {
      Strand* const s = strands_[i];
      if (s->idle()) continue;
      if (s->state_ == Strand::State::kSleeping && s->wake_ms_ > clock.MonotonicMs()) {
        next_ms = std::min(next_ms, s->wake_ms_);
        continue;
      }
      const bool changes = s->state_ == Strand::State::kAsking &&
                           (s->request_->kind == 'P' || s->request_->kind == 'D');
      if (changes && choose(2) == 1) {
        Note("not yet: " + s->name_ + " " + std::string(s->request_->key));
        strands_.erase(strands_.begin() + static_cast<ptrdiff_t>(i));
        strands_.push_back(s);
        return nullptr;
      }
      Advance(*s);
      return s;
    }
    if (late_.empty() || next_ms != INT64_MAX) {
      if (next_ms != INT64_MAX) clock.Advance(next_ms - clock.MonotonicMs());
    } else {
      LandLate();
    }
    return nullptr;
  }
  // A request that somebody gave up long ago arrives.
  void LandLate() {
    if (late_.empty()) return;
    const size_t i = random.Below(late_.size());
    const auto late = std::move(late_[i]);
    late_.erase(late_.begin() + static_cast<ptrdiff_t>(i));
    Note("late " + late.first);
    late.second();
  }
  size_t late() const { return late_.size(); }
  void EndStalls() {
    for (Strand* s : strands_) s->stalled_until_ = 0;
  }
  void StallAll(const std::vector<Strand*>& of, uint64_t steps) {
    for (Strand* s : of) s->stalled_until_ = step_ + steps;
  }

  // From inside a strand:
  Status Ask(char kind, std::string_view key, const std::function<void()>& carry_out,
             const std::function<std::function<void()>()>& copy) {
    Strand& s = *current_;
    const Strand::Request request{kind, key, carry_out, copy};
    s.request_ = &request;
    s.state_ = Strand::State::kAsking;
    if (weather.stalled.Is(s.name_, kind, key) && random.OneIn(2)) {
      s.stalled_until_ = step_ + 1 + random.Below(300);
    } else {
      MaybeStall(s);
    }
    Leave(s);
    s.request_ = nullptr;
    return s.answer_;
  }
  void Sleep(int64_t ms) {
    Strand& s = *current_;
    s.wake_ms_ = clock.MonotonicMs() + ms;
    s.state_ = Strand::State::kSleeping;
    Leave(s);
  }
  // Until Wake(), or that time (on MonotonicMs()).
  void WaitUntil(int64_t until_ms) {
    Strand& s = *current_;
    if (std::exchange(s.woken_, false)) {
      s.state_ = Strand::State::kReady;
    } else if (until_ms == INT64_MAX) {
      s.state_ = Strand::State::kIdle;
    } else {
      s.wake_ms_ = until_ms;
      s.state_ = Strand::State::kSleeping;
    }
    s.waiting_ = true;
    Leave(s);
    s.waiting_ = s.woken_ = false;
  }

 private:
  friend class Strand;
  static constexpr size_t kTraceLines = 120;

  void Leave(Strand& s) {
    Fiber::Yield();
    if (s.killed_) throw Strand::Killed();
  }

  void Advance(Strand& s) {
    if (s.state_ == Strand::State::kAsking) {
      CarryOut(s);
      if (s.state_ != Strand::State::kReady) return;
    }
    s.state_ = Strand::State::kReady;
    Run(s);
  }
  void Run(Strand& s) {
    current_ = &s;
    s.fiber_.Resume();
    current_ = nullptr;
  }

  void CarryOut(Strand& s) {
    const Strand::Request& r = *s.request_;
    const std::string what = s.name_ + " " + r.kind + " " + std::string(r.key);
    const bool changes = r.kind == 'P' || r.kind == 'D';
    s.answer_ = Status::Ok();
    s.state_ = Strand::State::kReady;
    const auto unknown = [&] { return Status(Tag::kOutcomeUnknown, "no answer: " + what, true); };
    if (choose) {
      switch (r.kind == 'P' ? choose(3) : 0) {
        case 1:
          Note(what + ": done, no answer");
          r.carry_out();
          s.answer_ = unknown();
          return;
        case 2:
          Note(what + ": held");
          late_.emplace_back(what, r.copy());
          s.answer_ = unknown();
          return;
      }
    } else if ((weather.fault != 0 && random.OneIn(weather.fault)) ||
               (weather.faulty.Is(s.name_, r.kind, r.key) && random.OneIn(2))) {
      switch (random.Below(changes ? 7 : 2)) {
        case 0:
          Note(what + ": unreachable");
          s.answer_ = Status(Tag::kStoreUnreachable, "unreachable: " + what, true);
          return;
        case 1:
          Note(what + ": 503");
          s.answer_ = Status(Tag::kStoreThrottled, "503: " + what, true);
          return;
        case 2:
          Note(what + ": done, 503");
          r.carry_out();
          s.answer_ = Status(Tag::kStoreThrottled, "503 after the fact: " + what, true);
          return;
        case 3:
          Note(what + ": dropped");
          s.answer_ = unknown();
          return;
        case 4:
          Note(what + ": done, no answer");
          r.carry_out();
          s.answer_ = unknown();
          return;
        case 5:
          Note(what + ": held");
          late_.emplace_back(what, r.copy());
          s.answer_ = unknown();
          return;
        case 6:
          Note(what + ": done, and again later");
          r.carry_out();
          late_.emplace_back(what, r.copy());
          return;
      }
    }
    Note(what);
    r.carry_out();
    if (!choose && weather.late_answer != 0 && random.OneIn(weather.late_answer)) {
      s.state_ = Strand::State::kAnswered;
      MaybeStall(s);
    }
  }

  void MaybeStall(Strand& s) {
    if (weather.stall == 0 || !random.OneIn(weather.stall)) return;
    // Mostly short, now and then for as long as many others' whole lives.
    const uint64_t longest = 1 + random.Below(weather.stall_steps);
    s.stalled_until_ = step_ + 1 + random.Below(longest);
  }

  std::vector<Strand*> strands_;  // in an order of their own: addresses decide nothing
  std::vector<Strand*> able_;
  std::vector<std::pair<std::string, std::function<void()>>> late_;
  Strand* current_ = nullptr;
  uint64_t step_ = 0;
  uint64_t digest_ = 0;
  bool log_ = false;
  std::vector<std::string> trace_;
  size_t trace_next_ = 0;
};

inline Strand::Strand(Scheduler& scheduler, std::string name, std::function<void()> body)
    : scheduler_(scheduler), name_(std::move(name)), fiber_([this, run = std::move(body)] {
        try {
          if (!killed_) run();
        } catch (const Killed&) {
        }
      }) {
  scheduler_.strands_.push_back(this);
}

inline Strand::~Strand() {
  Kill();
  std::erase(scheduler_.strands_, this);
}

inline void Strand::Kill() {
  if (killed_ || done()) return;
  killed_ = true;
  if (state_ == State::kAsking) {
    const std::string what = name_ + " " + request_->kind + " " + std::string(request_->key);
    switch (request_->kind == 'P' || request_->kind == 'D' ? scheduler_.random.Below(3) : 0) {
      case 1:
        scheduler_.Note("killed, done: " + what);
        request_->carry_out();
        break;
      case 2:
        scheduler_.Note("killed, on the wire: " + what);
        scheduler_.late_.emplace_back(what, request_->copy());
        break;
      default:
        break;
    }
  }
  scheduler_.Run(*this);
}

// A process's way to the bucket: every request is the scheduler's.
class SimStore : public ObjectStore {
 public:
  explicit SimStore(Scheduler& scheduler) : scheduler_(scheduler) {}

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    Result<std::string> put{std::string()};
    return Ask<std::string>(
        'P', key, [&] { put = scheduler_.bucket.Put(key, bytes, condition); },
        [&] {
          return std::function<void()>([&bucket = scheduler_.bucket, k = std::string(key),
                                        b = std::string(bytes),
                                        condition] { (void)bucket.Put(k, b, condition); });
        },
        put);
  }
  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    Result<StoredObject> got{StoredObject()};
    return Ask<StoredObject>(
        'G', key, [&] { got = scheduler_.bucket.Get(key, range); }, nullptr, got);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    Result<std::vector<ListEntry>> list{std::vector<ListEntry>()};
    return Ask<std::vector<ListEntry>>(
        'L', prefix, [&] { list = scheduler_.bucket.List(prefix, start_after, limit); }, nullptr,
        list);
  }
  Status Delete(std::string_view key) override {
    Result<bool> done{true};
    return Ask<bool>(
               'D', key, [&] { (void)scheduler_.bucket.Delete(key); },
               [&] {
                 return std::function<void()>([&bucket = scheduler_.bucket, k = std::string(key)] {
                   (void)bucket.Delete(k);
                 });
               },
               done)
        .status();
  }
  std::string Describe() const override { return "simulated"; }

 private:
  template <class T>
  Result<T> Ask(char kind, std::string_view key, const std::function<void()>& carry_out,
                const std::function<std::function<void()>()>& copy, Result<T>& result) {
    const Status answer = scheduler_.Ask(kind, key, carry_out, copy);
    if (!answer.ok()) return answer;
    return std::move(result);
  }

  Scheduler& scheduler_;
};

}  // namespace guildlite::testing
