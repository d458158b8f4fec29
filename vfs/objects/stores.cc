#include "vfs/objects/stores.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <string>
#include <system_error>
#include <utility>

#include "vfs/objects/local_store.h"
#include "vfs/objects/s3_store.h"
#include "vfs/objects/s3_url.h"
#include "vfs/objects/store_url.h"

namespace guildlite {
Stores::Stores(Clock& clock, Random& random, HttpClient& http, Environment environment)
    : clock_(clock),
      random_(random),
      http_(http),
      environment_(std::move(environment)),
      credentials_(environment_, http, clock),
      cancel_at_ms_(std::numeric_limits<int64_t>::max()) {}

Result<std::unique_ptr<ObjectStore>> Stores::Open(std::string_view url, int64_t patience_ms) {
  const auto parsed = ParseStoreUrl(url);
  if (!parsed.ok()) return parsed.status();
  if (parsed->scheme == "s3") return OpenS3(parsed->path, patience_ms);
  return std::unique_ptr<ObjectStore>(std::make_unique<LocalStore>(parsed->path, clock_, random_));
}

Result<std::unique_ptr<ObjectStore>> Stores::OpenS3(std::string_view rest, int64_t patience_ms) {
  auto parsed = ParseS3Url(rest);
  if (!parsed.ok()) return parsed.status();
  auto url = CompleteS3Url(std::move(*parsed), environment_);
  if (!url.ok()) return url.status();

  auto s3 = std::make_unique<S3Store>(*url, http_, credentials_, clock_);
  S3Store& bucket = *s3;
  RetrySettings settings;
  settings.deadline_ms = patience_ms;
  settings.wait = [this](int64_t ms) { return Wait(ms); };
  auto patient = std::make_unique<RetryingStore>(std::move(s3), clock_, random_, settings);
  if (IsAws(*url)) return std::unique_ptr<ObjectStore>(std::move(patient));
  const std::string place = S3BaseUrl(*url, url->region);
  return std::unique_ptr<ObjectStore>(std::make_unique<ProbedStore>(
      std::move(patient), [this, place, &bucket](ObjectStore& store) -> Result<StoreVerdict> {
        auto verdict = verdicts_.Of(place, [&] { return ProbeStore(store, clock_, random_); });
        if (verdict.ok() && verdict->bare_etags) bucket.UseBareEtags();
        return verdict;
      }));
}

Result<std::string> Stores::Place(std::string_view url) const {
  auto parsed = ParseStoreUrl(url);
  if (!parsed.ok()) return parsed.status();
  if (parsed->scheme == "s3") {
    auto s3 = ParseS3Url(parsed->path);
    if (!s3.ok()) return s3.status();
    const auto complete = CompleteS3Url(std::move(*s3), environment_);
    if (!complete.ok()) return complete.status();
    return S3Place(*complete);
  }
  std::error_code error;
  const auto path = std::filesystem::weakly_canonical(parsed->path, error);
  return "file://" + (error ? parsed->path : path.string());
}

bool Stores::Wait(int64_t ms) {
  std::unique_lock lock(mutex_);
  const int64_t until_ms = clock_.MonotonicMs() + ms;
  for (;;) {
    const int64_t now_ms = clock_.MonotonicMs();
    if (now_ms >= cancel_at_ms_) return false;
    if (now_ms >= until_ms) return true;
    clock_.WaitFor(cancelled_, lock, std::min(until_ms, cancel_at_ms_) - now_ms);
  }
}

void Stores::CancelAt(int64_t monotonic_ms) {
  const std::lock_guard lock(mutex_);
  cancel_at_ms_ = std::min(cancel_at_ms_, monotonic_ms);
  cancelled_.notify_all();
}

}  // namespace guildlite
