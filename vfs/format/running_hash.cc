#include "vfs/format/running_hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace guildlite {

struct RunningHash::State {
  XXH3_state_t xxh;
};

RunningHash::RunningHash() : state_(new State) { Reset(); }
RunningHash::~RunningHash() { delete state_; }

void RunningHash::Reset() { XXH3_64bits_reset(&state_->xxh); }
void RunningHash::Update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(&state_->xxh, bytes.data(), bytes.size());
}
uint64_t RunningHash::Digest() const { return XXH3_64bits_digest(&state_->xxh); }

}  // namespace guildlite
