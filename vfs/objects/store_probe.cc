#include "vfs/objects/store_probe.h"

#include <condition_variable>
#include <utility>
#include <vector>

#include "vfs/base/task.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

// Far longer than any probe lasts, and than two machines' clocks differ: what another process is
// just probing with must not vanish.
constexpr uint64_t kLeftoverMs = 24 * 3600 * 1000;
constexpr size_t kLeftoversMax = 1000;

// One of many puts that are made at once.
class Contender : public Task {
 public:
  struct Race {
    std::mutex mutex;
    std::condition_variable changed;
    // Guarded by mutex.
    bool begun = false;
    size_t running = 0;
  };

  Contender(Race& race, ObjectStore& store, std::string key, std::string body,
            PutCondition condition)
      : race_(race),
        store_(store),
        key_(std::move(key)),
        body_(std::move(body)),
        condition_(std::move(condition)) {}

  int64_t Step(int64_t) override {
    {
      std::unique_lock lock(race_.mutex);
      race_.changed.wait(lock, [this] { return race_.begun; });
    }
    result_ = store_.Put(key_, body_, condition_);
    const std::lock_guard lock(race_.mutex);
    --race_.running;
    race_.changed.notify_all();
    return kIdle;
  }

  const Result<std::string>& result() const { return result_; }
  const std::string& body() const { return body_; }

 private:
  Race& race_;
  ObjectStore& store_;
  const std::string key_;
  const std::string body_;
  const PutCondition condition_;
  Result<std::string> result_ = std::string();
};

class Probe {
 public:
  Probe(ObjectStore& store, Clock& clock, Random& random, const ProbeSettings& settings)
      : store_(store),
        random_(random),
        settings_(settings),
        pool_(clock, settings.parallel),
        now_ms_(static_cast<uint64_t>(clock.NowMs())),
        key_(ProbeKey(now_ms_, random.Next64())),
        other_key_(ProbeKey(now_ms_, random.Next64())) {}

  Result<StoreVerdict> Run() {
    Status status = OneAfterTheOther();
    for (int round = 0; round < settings_.rounds && status.ok() && verdict_.unsafe.empty();
         ++round) {
      status = AtOnce();
    }
    pool_.Stop();
    for (const std::string* key : {&key_, &other_key_}) {
      // A leftover does no harm.
      if (Status s = store_.Delete(*key); !s.ok() && status.ok()) status = s;
    }
    SweepLeftovers();
    // What was seen stays seen, whatever happened afterwards.
    if (!status.ok() && verdict_.unsafe.empty()) return status;
    return verdict_;
  }

 private:
  // Of probes whose process was killed. Whoever may not list leaves them there.
  void SweepLeftovers() {
    const auto found = store_.List(kProbePrefix, "", kLeftoversMax);
    if (!found.ok()) return;
    std::vector<std::string> old;
    for (const ListEntry& entry : *found) {
      const auto made_ms = ParseProbeKey(entry.key);
      if (made_ms && *made_ms + kLeftoverMs < now_ms_) old.push_back(entry.key);
    }
    if (!old.empty()) (void)store_.DeleteAll(old);
  }

  // Ok if the put was refused with `tag`, or if that it was not is the verdict.
  Status Expect(const Result<std::string>& put, Tag tag, std::string_view otherwise) {
    if (put.ok()) return Unsafe(otherwise);
    if (put.status().tag() == tag) return Status::Ok();
    return put.status().tag() == Tag::kStoreUnsafe ? Unsafe(put.status().message()) : put.status();
  }
  Status Unsafe(std::string_view seen) {
    if (verdict_.unsafe.empty()) verdict_.unsafe = seen;
    return Status::Ok();
  }
  bool unsafe() const { return !verdict_.unsafe.empty(); }
  std::string Body() { return "guildlite probe " + std::to_string(random_.Next64()); }

  // Ok if `key` holds `body`, or if that it does not is the verdict.
  Status ExpectContent(const std::string& key, const std::string& body,
                       const std::string& version) {
    const auto got = store_.Get(key);
    if (got.status().tag() == Tag::kNotFound) return Unsafe("a read did not find what was put");
    if (!got.ok()) return got.status();
    if (got->bytes != body) return Unsafe("a read did not give what was put last");
    if (got->version != version) return Unsafe("a read gave another ETag than the put");
    return Status::Ok();
  }

  Status OneAfterTheOther() {
    const std::string first = Body(), second = Body();
    const auto created = store_.Put(key_, first, PutCondition::Create());
    if (!created.ok()) {
      if (created.status().tag() == Tag::kStoreUnsafe) return Unsafe(created.status().message());
      if (created.status().tag() == Tag::kAlreadyExists)
        return Unsafe("a create of a new name failed");
      return created.status();
    }
    GUILDLITE_RETURN_IF_ERROR(
        Expect(store_.Put(key_, second, PutCondition::Create()), Tag::kAlreadyExists,
               "an object was created a second time: If-None-Match is ignored"));
    if (unsafe()) return Status::Ok();
    GUILDLITE_RETURN_IF_ERROR(ExpectContent(key_, first, *created));
    if (unsafe()) return Status::Ok();

    auto replaced = store_.Put(key_, second, PutCondition::Match(*created));
    if (replaced.status().tag() == Tag::kPrecondition && created->size() > 2 &&
        created->front() == '"' && created->back() == '"') {
      replaced =
          store_.Put(key_, second, PutCondition::Match(created->substr(1, created->size() - 2)));
      verdict_.bare_etags = replaced.ok();
    }
    if (!replaced.ok()) {
      const Tag tag = replaced.status().tag();
      if (tag == Tag::kPrecondition) return Unsafe("If-Match refused the version there is");
      if (tag == Tag::kStoreUnsafe) return Unsafe(replaced.status().message());
      return replaced.status();
    }
    const std::string gone = Spelled(*created);
    GUILDLITE_RETURN_IF_ERROR(Expect(store_.Put(key_, first, PutCondition::Match(gone)),
                                     Tag::kPrecondition,
                                     "a version that is gone was replaced: If-Match is ignored"));
    if (unsafe()) return Status::Ok();
    GUILDLITE_RETURN_IF_ERROR(ExpectContent(key_, second, *replaced));
    if (unsafe()) return Status::Ok();
    GUILDLITE_RETURN_IF_ERROR(Expect(store_.Put(other_key_, first, PutCondition::Match(gone)),
                                     Tag::kPrecondition,
                                     "If-Match created an object that was not there"));
    if (unsafe()) return Status::Ok();
    const auto missing = store_.Get(other_key_);
    if (missing.ok()) return Unsafe("a refused put was done all the same");
    if (missing.status().tag() != Tag::kNotFound) return missing.status();

    GUILDLITE_RETURN_IF_ERROR(store_.Delete(key_));
    const auto deleted = store_.Get(key_);
    if (deleted.ok()) return Unsafe("a read found what was deleted");
    return deleted.status().tag() == Tag::kNotFound ? Status::Ok() : deleted.status();
  }

  // A version in the spelling that If-Match wants.
  std::string Spelled(const std::string& version) const {
    return verdict_.bare_etags ? version.substr(1, version.size() - 2) : version;
  }

  Status AtOnce() {
    GUILDLITE_RETURN_IF_ERROR(store_.Delete(key_));
    GUILDLITE_RETURN_IF_ERROR(Race(PutCondition::Create(), "creates of one object"));
    if (unsafe()) return Status::Ok();
    const auto there = store_.Get(key_);
    if (!there.ok()) return there.status();
    return Race(PutCondition::Match(Spelled(there->version)), "replacements of one version");
  }

  Status Race(const PutCondition& condition, const std::string& what) {
    Contender::Race race;
    std::vector<std::unique_ptr<Contender>> contenders;
    for (size_t i = 0; i < settings_.parallel; ++i) {
      contenders.push_back(std::make_unique<Contender>(race, store_, key_, Body(), condition));
      const Status added = pool_.Add(contenders.back().get());
      if (added.ok()) {
        const std::lock_guard lock(race.mutex);
        ++race.running;
      } else {
        contenders.pop_back();
        if (contenders.empty()) return added;
        break;
      }
    }
    {
      std::unique_lock lock(race.mutex);
      race.begun = true;
      race.changed.notify_all();
      race.changed.wait(lock, [&] { return race.running == 0; });
    }
    for (const auto& contender : contenders) pool_.Remove(contender.get());

    const auto there = store_.Get(key_);
    if (!there.ok()) return there.status();
    size_t winners = 0, unknown = 0;
    for (const auto& contender : contenders) {
      const Result<std::string>& put = contender->result();
      const Tag tag = put.status().tag();
      winners += put.ok();
      unknown += tag == Tag::kOutcomeUnknown;
      if (!put.ok() && tag != Tag::kOutcomeUnknown && tag != Tag::kAlreadyExists &&
          tag != Tag::kPrecondition) {
        return put.status();
      }
    }
    const std::string count = std::to_string(winners) + " of " + std::to_string(contenders.size()) +
                              " simultaneous " + what + " succeeded, where one may";
    if (winners > 1) return Unsafe(count);
    if (winners == 0 && unknown == 0) return Unsafe(count);
    bool kept = false;  // what is there is the winner's, or, if none is known, of one that may be
    for (const auto& contender : contenders) {
      const Result<std::string>& put = contender->result();
      const bool may_be = winners == 1 ? put.ok() : put.status().tag() == Tag::kOutcomeUnknown;
      kept = kept || (may_be && there->bytes == contender->body());
    }
    if (!kept) return Unsafe("of simultaneous " + what + ", what is there is not the winner's");
    return Status::Ok();
  }

  ObjectStore& store_;
  Random& random_;
  const ProbeSettings settings_;
  WorkerPool pool_;
  const uint64_t now_ms_;
  const std::string key_, other_key_;
  StoreVerdict verdict_;
};

}  // namespace

Result<StoreVerdict> ProbeStore(ObjectStore& store, Clock& clock, Random& random,
                                ProbeSettings settings) {
  return Probe(store, clock, random, settings).Run();
}

Result<StoreVerdict> StoreVerdicts::Of(const std::string& place,
                                       const std::function<Result<StoreVerdict>()>& probe) {
  std::shared_ptr<Place> there;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Place>& slot = places_[place];
    if (!slot) slot = std::make_shared<Place>();
    there = slot;
  }
  const std::lock_guard lock(there->probing);
  if (!there->verdict) {
    auto verdict = probe();
    if (!verdict.ok()) return verdict;
    there->verdict = std::move(*verdict);
  }
  return *there->verdict;
}

Result<std::string> ProbedStore::Put(std::string_view key, std::string_view bytes,
                                     const PutCondition& condition) {
  if (condition.kind != PutCondition::Kind::kOverwrite && !safe_) {
    const auto verdict = verdict_(*base_);
    if (!verdict.ok()) return verdict.status().Context("probe " + Describe());
    if (!verdict->unsafe.empty()) {
      return Status(Tag::kStoreUnsafe, Describe() + ": " + verdict->unsafe +
                                           "; two writers could not be kept apart there. Use a "
                                           "store whose conditional puts hold (README.md)");
    }
    safe_ = true;
  }
  return base_->Put(key, bytes, condition);
}

}  // namespace guildlite
