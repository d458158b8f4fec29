#include "vfs/objects/credentials.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "vfs/base/log.h"
#include "vfs/objects/credentials_endpoint.h"
#include "vfs/objects/credentials_profile.h"
#include "vfs/objects/web_identity.h"

namespace guildlite {

Result<FoundCredentials> CredentialsFromEnvironment(const Environment& environment) {
  FoundCredentials found;
  found.credentials = {Variable(environment, "AWS_ACCESS_KEY_ID"),
                       Variable(environment, "AWS_SECRET_ACCESS_KEY"),
                       Variable(environment, "AWS_SESSION_TOKEN")};
  found.source = "the environment";
  const bool has_id = !found.credentials.access_key_id.empty();
  const bool has_secret = !found.credentials.secret_access_key.empty();
  if (has_id && has_secret) return found;
  if (!has_id && !has_secret) return {Tag::kNotFound, "AWS_ACCESS_KEY_ID is not set"};
  return {Tag::kStoreDenied, has_id ? "AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not"
                                    : "AWS_SECRET_ACCESS_KEY is set, AWS_ACCESS_KEY_ID is not"};
}

CredentialsProvider::CredentialsProvider(Environment environment, HttpClient& http, Clock& clock)
    : environment_(std::move(environment)), http_(http), clock_(clock) {}

Result<FoundCredentials> CredentialsProvider::Find() const {
  const std::pair<std::string, std::function<Result<FoundCredentials>()>> places[] = {
      {"the environment", [&] { return CredentialsFromEnvironment(environment_); }},
      {"web identity",
       [&] { return CredentialsFromWebIdentity(environment_, AwsRegion(environment_), http_); }},
      {"the shared files", [&] { return CredentialsFromProfile(environment_, http_, clock_); }},
      {"the container", [&] { return CredentialsFromContainer(environment_, http_); }},
      {"the EC2 instance", [&] { return CredentialsFromInstance(environment_, http_); }},
  };
  std::string looked_at;
  for (const auto& [name, ask] : places) {
    auto found = ask();
    if (found.ok()) return found;
    if (found.status().tag() != Tag::kNotFound) {
      return found.status().Context("get AWS credentials from " + name);
    }
    looked_at += (looked_at.empty() ? "" : "; ") + name + ": " + found.status().message();
  }
  return {Tag::kStoreDenied,
          "no AWS credentials were found (" + looked_at +
              "); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod or machine a "
              "role"};
}

bool CredentialsProvider::Ended() const {
  return found_->expires_ms && clock_.NowMs() >= *found_->expires_ms;
}

bool CredentialsProvider::MustAsk() const {
  if (!found_) return true;
  if (clock_.MonotonicMs() < pause_until_ms_) return false;
  return refused_ || (found_->expires_ms && clock_.NowMs() >= refresh_at_ms_);
}

Result<AwsCredentials> CredentialsProvider::Get() {
  std::unique_lock lock(mutex_);
  while (MustAsk() && asking_) {
    if (found_ && !refused_ && !Ended()) return found_->credentials;
    // Bounded by the time limits of the sources.
    const uint64_t failures = failures_;
    asked_.wait(lock, [&] { return !asking_; });
    if (failures_ != failures && MustAsk()) return failure_;
  }
  if (!MustAsk()) return found_->credentials;

  asking_ = true;
  lock.unlock();
  auto found = Find();
  lock.lock();
  asking_ = false;
  asked_.notify_all();

  if (found.ok()) {
    if (!found_ || found_->source != found->source) {
      Log(LogLevel::kInfo, "CREDENTIALS", "", "AWS credentials come from " + found->source);
    }
    found_ = std::move(*found);
    refused_ = false;
    pause_until_ms_ = clock_.MonotonicMs() + kPauseMs;
    if (found_->expires_ms) {
      const int64_t life_ms = *found_->expires_ms - clock_.NowMs();
      refresh_at_ms_ = *found_->expires_ms - std::min(kRefreshBeforeMs, life_ms / 2);
    }
    return found_->credentials;
  }
  failures_++;
  failure_ = found.status();
  if (!found_ || refused_ || Ended()) return failure_;
  Log(LogLevel::kWarn, TagName(failure_.tag()), "",
      failure_.message() + " (those from before are used until they end)");
  pause_until_ms_ = clock_.MonotonicMs() + std::min(kPauseMs, *found_->expires_ms - clock_.NowMs());
  return found_->credentials;
}

void CredentialsProvider::Invalidate() {
  const std::lock_guard lock(mutex_);
  refused_ = found_.has_value();
}

}  // namespace guildlite
