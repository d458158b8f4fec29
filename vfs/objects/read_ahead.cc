#include "vfs/objects/read_ahead.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace guildlite {

ReadAhead::ReadAhead(ObjectStore& store, End end)
    : store_(store),
      at_once_(std::max<size_t>(store.gets_at_once(), 1)),
      window_(end == End::kKnown ? at_once_ : 1) {}

ReadAhead::~ReadAhead() {
  if (!threads_) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    asked_.notify_all();
  }
  const WorkerPool::Waiting thread_is_free;
  threads_.reset();
}

bool ReadAhead::HasRoom(uint64_t size) const {
  if (questions_.empty()) return true;
  return room_ > 0 && bytes_ < kBytesMax && size <= kBytesMax - bytes_;
}

void ReadAhead::Ask(std::string key, std::optional<uint64_t> size) {
  assert(HasRoom(size.value_or(kFirstBytes)));
  if (questions_.empty()) room_ = window_;
  --room_;
  Question question{std::move(key), size.value_or(kFirstBytes), {}, {}};
  if (!size && at_once_ > 1) question.range = ByteRange{0, kFirstBytes};
  bytes_ += question.size;
  size_t wanted;
  {
    const std::lock_guard lock(mutex_);
    questions_.push_back(std::move(question));
    ++idle_;
    wanted = std::min(questions_.size(), at_once_);
    asked_.notify_one();
  }
  if (wanted == 1) return;  // whoever asks for a single one can as well wait for it
  if (!threads_) threads_.emplace();
  while (threads_->size() < wanted && threads_->Start([this] { Work(); })) {
  }
}

Result<StoredObject> ReadAhead::Answer() {
  std::unique_lock lock(mutex_);
  assert(!questions_.empty());
  Question& first = questions_.front();
  if (idle_ == questions_.size()) {
    AskStore(first, lock);
  } else {
    const WorkerPool::Waiting thread_is_free;
    answered_.wait(lock, [&] { return first.answer.has_value(); });
  }
  Question question = std::move(first);
  questions_.pop_front();
  lock.unlock();

  bytes_ -= question.size;
  if (window_ == at_once_) {
    ++room_;
  } else if (questions_.empty()) {
    if (second_) window_ = std::min(2 * window_, at_once_);
    second_ = !second_;
  }
  Result<StoredObject> answer = *std::move(question.answer);
  if (question.range && answer.ok() && answer->bytes.size() < answer->size) {
    const uint64_t read = answer->bytes.size();
    auto rest = store_.Get(question.key, ByteRange{read, answer->size - read});
    if (!rest.ok()) return rest;
    answer->bytes += rest->bytes;
  }
  return answer;
}

// The first idle one. Leaves `lock` for the time the store takes.
void ReadAhead::AskStore(Question& question, std::unique_lock<std::mutex>& lock) {
  --idle_;
  lock.unlock();
  auto answer = store_.Get(question.key, question.range);
  lock.lock();
  question.answer = std::move(answer);
}

void ReadAhead::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    asked_.wait(lock, [this] { return idle_ > 0 || ending_; });
    if (ending_) return;
    AskStore(questions_[questions_.size() - idle_], lock);
    answered_.notify_one();
  }
}

}  // namespace guildlite
