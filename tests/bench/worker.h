// One measured SQLite writer, run as a process of its own: a module once loaded stays loaded, so
// plain and replicated runs must not share a process. The benchmark binary re-executes itself as
// the worker and reads one line of numbers back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace guildlite::bench {

struct WorkerRun {
  std::string mode = "plain";      // plain, loaded (module loaded, not replicated), replicated
  std::string workload = "small";  // small: one-row upserts; bot: one-row inserts, two indices
  int64_t commits = 60000;
  int64_t rate_per_s = 0;  // 0: as fast as it goes
  int64_t rows = 0;        // table size before the run
  int64_t sync_interval_ms = 1000;
  bool one_core = false;  // all of the process pinned to core 0
  // The program has another thread, as Node and most servers do. The kernel and libc spare a
  // process without one some atomics in each call, which the worker's thread ends.
  bool threaded = false;
};

struct WorkerResult {
  double seconds = 0;
  double commits_per_s = 0;
  int64_t wal_bytes_max = 0;
  int64_t wal_resets = 0;
  double p50_us = 0;
  double p99_us = 0;
  double max_us = 0;
  int64_t rss_kb = 0;
  int64_t threads = 0;
  int64_t descriptors = 0;
  int64_t gate_helped = 0;
  int64_t gate_refused = 0;
  int64_t pages = 0;
  int64_t pages_without_base = 0;
  int64_t bytes_sent = 0;
  int64_t puts = 0;
  double load_ms = 0;
  int64_t idle_switches = 0;  // voluntary context switches of all threads in 5 idle seconds
};

// If argv asks for a worker, runs it and exits. Call first in main().
void MaybeBeWorker(int argc, char** argv);
WorkerResult RunWorker(const WorkerRun& run);

// Median of a list.
double Median(std::vector<double> values);

}  // namespace guildlite::bench
