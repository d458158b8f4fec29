#include "vfs/shim/stranger_watch.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>
#include <system_error>

namespace guildlite {

StrangerWatch::~StrangerWatch() { Stop(); }

bool StrangerWatch::StartLocked() {
  if (thread_.joinable()) return true;
  if (failed_) return false;
  inotify_ = ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  stop_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (inotify_ < 0 || stop_ < 0) {
    failed_ = true;
    return false;
  }
  // The host's signals are the host's.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { Run(); });
    pthread_setname_np(thread_.native_handle(), "guildlite");
  } catch (const std::system_error&) {
    failed_ = true;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return !failed_;
}

void StrangerWatch::Arm(const std::string& wal_path) {
  const std::lock_guard lock(mutex_);
  if (!StartLocked()) return;
  const int wd = ::inotify_add_watch(inotify_, wal_path.c_str(), IN_MODIFY | IN_ONESHOT);
  if (wd >= 0) paths_[wd] = wal_path;
}

void StrangerWatch::Disarm(const std::string& wal_path) {
  const std::lock_guard lock(mutex_);
  for (auto it = paths_.begin(); it != paths_.end();) {
    if (it->second == wal_path) {
      ::inotify_rm_watch(inotify_, it->first);
      it = paths_.erase(it);
    } else {
      ++it;
    }
  }
}

void StrangerWatch::Run() {
  std::array<pollfd, 2> fds = {pollfd{inotify_, POLLIN, 0}, pollfd{stop_, POLLIN, 0}};
  alignas(inotify_event) std::array<char, 4096> buffer;
  for (;;) {
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    const ssize_t n = ::read(inotify_, buffer.data(), buffer.size());
    for (ssize_t at = 0; at < n;) {
      inotify_event event;
      std::memcpy(&event, buffer.data() + at, sizeof event);
      at += static_cast<ssize_t>(sizeof event + event.len);
      std::string path;
      {
        const std::lock_guard lock(mutex_);
        const auto it = paths_.find(event.wd);
        if (it == paths_.end()) continue;
        path = it->second;
        if ((event.mask & IN_IGNORED) != 0) paths_.erase(it);
      }
      if ((event.mask & IN_MODIFY) != 0) wrote_(path);
    }
  }
}

void StrangerWatch::Stop() {
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) return;
    const uint64_t one = 1;
    (void)!::write(stop_, &one, sizeof one);
  }
  thread_.join();
  const std::lock_guard lock(mutex_);
  ::close(inotify_);
  ::close(stop_);
  inotify_ = stop_ = -1;
  paths_.clear();
  failed_ = true;  // not started again: the process ends
}

void StrangerWatch::AbandonInChild() {
  if (inotify_ >= 0) ::close(inotify_);
  if (stop_ >= 0) ::close(stop_);
  inotify_ = stop_ = -1;
  failed_ = true;
  // The handle names a thread that is not here; a joinable one must not be destroyed.
  new (&thread_) std::thread();
}

}  // namespace guildlite
