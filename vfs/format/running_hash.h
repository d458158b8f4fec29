// Hash64 of bytes that come in pieces: a batch is written and read as a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace guildlite {

class RunningHash {
 public:
  RunningHash();
  ~RunningHash();
  RunningHash(const RunningHash&) = delete;
  RunningHash& operator=(const RunningHash&) = delete;

  void Reset();
  void Update(std::span<const std::byte> bytes);
  // Equals Hash64 of everything since Reset(), concatenated. More may follow.
  uint64_t Digest() const;

 private:
  struct State;
  State* state_;
};

}  // namespace guildlite
