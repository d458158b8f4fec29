#include "tests/support/fault_store.h"

namespace guildlite {
namespace {

Status AnswerOf(Fault fault, std::string_view key) {
  const std::string message = "injected fault at " + std::string(key);
  switch (fault) {
    case Fault::kNone:
      return Status::Ok();
    case Fault::kFail:
      return Status(Tag::kStoreUnreachable, message, true);
    case Fault::kDeny:
      return Status(Tag::kStoreDenied, message);
    case Fault::kDrop:
    case Fault::kLoseReply:
    case Fault::kHold:
      return Status(Tag::kOutcomeUnknown, message, true);
  }
  return Status::Ok();
}

}  // namespace

void FaultStore::Inject(Kind kind, uint64_t n, Fault fault) {
  const std::lock_guard lock(mutex_);
  injected_[{kind, calls_[kind] + n}] = fault;
}

void FaultStore::SetOutage(Fault fault) {
  const std::lock_guard lock(mutex_);
  outage_ = fault;
}

void FaultStore::OnCall(std::function<Fault(const Call&)> hook) {
  const std::lock_guard lock(mutex_);
  hook_ = std::move(hook);
}

void FaultStore::DeliverHeld() {
  std::deque<std::function<void()>> requests;
  {
    const std::lock_guard lock(mutex_);
    requests.swap(held_);
  }
  for (const auto& request : requests) request();
}

size_t FaultStore::held() const {
  const std::lock_guard lock(mutex_);
  return held_.size();
}

uint64_t FaultStore::calls(Kind kind) const {
  const std::lock_guard lock(mutex_);
  const auto it = calls_.find(kind);
  return it == calls_.end() ? 0 : it->second;
}

Fault FaultStore::Decide(Kind kind, std::string_view key) {
  std::function<Fault(const Call&)> hook;
  Call call{kind, std::string(key)};
  Fault fault;
  {
    const std::lock_guard lock(mutex_);
    call.number = ++calls_[kind];
    ++calls_[kAny];
    fault = outage_;
    for (const auto& place : {std::pair(kind, call.number), std::pair(kAny, calls_[kAny])}) {
      if (const auto it = injected_.find(place); it != injected_.end()) {
        fault = it->second;
        injected_.erase(it);
      }
    }
    hook = hook_;
  }
  if (hook) {
    if (const Fault scripted = hook(call); scripted != Fault::kNone) return scripted;
  }
  return fault;
}

void FaultStore::Hold(std::function<void()> request) {
  const std::lock_guard lock(mutex_);
  held_.push_back(std::move(request));
}

Result<std::string> FaultStore::Put(std::string_view key, std::string_view bytes,
                                    const PutCondition& condition) {
  const Fault fault = Decide(kPut, key);
  if (fault == Fault::kNone) return base_.Put(key, bytes, condition);
  if (fault == Fault::kLoseReply) static_cast<void>(base_.Put(key, bytes, condition));
  if (fault == Fault::kHold) {
    Hold([this, k = std::string(key), b = std::string(bytes), condition] {
      static_cast<void>(base_.Put(k, b, condition));
    });
  }
  return AnswerOf(fault, key);
}

Result<StoredObject> FaultStore::Get(std::string_view key, std::optional<ByteRange> range) {
  const Fault fault = Decide(kGet, key);
  if (fault == Fault::kNone) return base_.Get(key, range);
  return AnswerOf(fault, key);
}

Result<std::vector<ListEntry>> FaultStore::List(std::string_view prefix,
                                                std::string_view start_after, size_t limit) {
  const Fault fault = Decide(kList, prefix);
  if (fault == Fault::kNone) return base_.List(prefix, start_after, limit);
  return AnswerOf(fault, prefix);
}

Status FaultStore::Delete(std::string_view key) {
  const Fault fault = Decide(kDelete, key);
  if (fault == Fault::kNone) return base_.Delete(key);
  if (fault == Fault::kLoseReply) static_cast<void>(base_.Delete(key));
  if (fault == Fault::kHold) {
    Hold([this, k = std::string(key)] { static_cast<void>(base_.Delete(k)); });
  }
  return AnswerOf(fault, key);
}

}  // namespace guildlite
