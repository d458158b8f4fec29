// StrangerWatch: notices writes of other processes (programs without the extension) to the -wal of
// an idle database, by inotify(7). Armed only while a database is idle and disarmed by its first
// event, so a busy one costs nothing and an idle one makes no wake-up.
//
// One thread and one inotify descriptor a process, started at the first Arm(). Where inotify is not
// to be had (limits, a container's policy) strangers are noticed at our own next commit instead.
//
// Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace guildlite {

class StrangerWatch {
 public:
  // `wrote` is called on the watch's thread with the path that was armed.
  explicit StrangerWatch(std::function<void(const std::string& wal_path)> wrote)
      : wrote_(std::move(wrote)) {}
  ~StrangerWatch();
  StrangerWatch(const StrangerWatch&) = delete;
  StrangerWatch& operator=(const StrangerWatch&) = delete;

  // One event, then it must be armed again. A path that does not exist is not watched.
  void Arm(const std::string& wal_path);
  void Disarm(const std::string& wal_path);
  // Joins the thread.
  void Stop();
  // In a forked child: gives up thread and descriptors.
  void AbandonInChild();

 private:
  void Run();
  bool StartLocked();

  const std::function<void(const std::string&)> wrote_;
  std::mutex mutex_;
  int inotify_ = -1;
  int stop_ = -1;  // eventfd
  bool failed_ = false;
  std::map<int, std::string> paths_;  // by watch descriptor
  std::thread thread_;
};

}  // namespace guildlite
