// What replication costs a writer: commit rate, WAL size and WAL resets with and without, paired in
// one run (machines are noisy; the ratio of neighbours is not), and what it costs in memory,
// threads and descriptors.

#include <benchmark/benchmark.h>

#include "tests/bench/worker.h"

namespace guildlite::bench {
namespace {

void Paired(benchmark::State& state, const WorkerRun& base, int pairs) {
  std::vector<double> ratio, plain_rate, rate, wal, resets, p50;
  WorkerResult last;
  for (auto _ : state) {
    for (int i = 0; i < pairs; ++i) {
      WorkerRun plain = base, replicated = base;
      plain.mode = "plain";
      replicated.mode = "replicated";
      // Neither always goes first.
      WorkerResult p, r;
      if (i % 2 == 0) {
        p = RunWorker(plain);
        r = RunWorker(replicated);
      } else {
        r = RunWorker(replicated);
        p = RunWorker(plain);
      }
      ratio.push_back(r.commits_per_s / p.commits_per_s);
      plain_rate.push_back(p.commits_per_s);
      rate.push_back(r.commits_per_s);
      wal.push_back(static_cast<double>(r.wal_bytes_max) /
                    static_cast<double>(std::max<int64_t>(1, p.wal_bytes_max)));
      resets.push_back(static_cast<double>(r.wal_resets) /
                       static_cast<double>(std::max<int64_t>(1, p.wal_resets)));
      p50.push_back(r.p50_us - p.p50_us);
      last = r;
    }
  }
  state.counters["commit_ratio"] = Median(ratio);
  state.counters["commit_ratio_min"] = *std::min_element(ratio.begin(), ratio.end());
  state.counters["commit_ratio_max"] = *std::max_element(ratio.begin(), ratio.end());
  state.counters["plain_per_s"] = Median(plain_rate);
  state.counters["replicated_per_s"] = Median(rate);
  state.counters["wal_max_ratio"] = Median(wal);
  state.counters["wal_reset_ratio"] = Median(resets);
  state.counters["p50_added_us"] = Median(p50);
  state.counters["p99_us"] = last.p99_us;
  state.counters["max_us"] = last.max_us;
  state.counters["gate_helped"] = static_cast<double>(last.gate_helped);
  state.counters["gate_refused"] = static_cast<double>(last.gate_refused);
  state.counters["no_base_share"] = static_cast<double>(last.pages_without_base) /
                                    static_cast<double>(std::max<int64_t>(1, last.pages));
  state.counters["idle_switches_5s"] = static_cast<double>(last.idle_switches);
}

void BM_CommitsAtSaturation(benchmark::State& state) {
  WorkerRun run;
  run.commits = 60000;
  run.threaded = state.range(1) != 0;
  Paired(state, run, static_cast<int>(state.range(0)));
}
BENCHMARK(BM_CommitsAtSaturation)
    ->ArgNames({"pairs", "threaded"})
    ->Args({9, 0})
    ->Args({9, 1})
    ->Iterations(1)
    ->Unit(benchmark::kSecond);

void BM_BotInsertsAtSaturation(benchmark::State& state) {
  WorkerRun run;
  run.workload = "bot";
  run.rows = 50000;
  run.commits = 30000;
  Paired(state, run, static_cast<int>(state.range(0)));
}
BENCHMARK(BM_BotInsertsAtSaturation)->Arg(5)->Iterations(1)->Unit(benchmark::kSecond);

void BM_CommitsOffered500(benchmark::State& state) {
  WorkerRun run;
  run.commits = 2500;
  run.rate_per_s = 500;
  Paired(state, run, static_cast<int>(state.range(0)));
}
BENCHMARK(BM_CommitsOffered500)->Arg(3)->Iterations(1)->Unit(benchmark::kSecond);

// Writer and worker share one core.
void BM_CommitsOnOneCore(benchmark::State& state) {
  WorkerRun run;
  run.commits = 30000;
  run.one_core = true;
  Paired(state, run, static_cast<int>(state.range(0)));
}
BENCHMARK(BM_CommitsOnOneCore)->Arg(5)->Iterations(1)->Unit(benchmark::kSecond);

// Loaded, but this database is not replicated.
void BM_CommitsNotReplicated(benchmark::State& state) {
  std::vector<double> ratio;
  for (auto _ : state) {
    for (int i = 0; i < state.range(0); ++i) {
      WorkerRun plain, loaded;
      plain.mode = "plain";
      loaded.mode = "loaded";
      const double p = RunWorker(plain).commits_per_s;
      const double l = RunWorker(loaded).commits_per_s;
      ratio.push_back(l / p);
    }
  }
  state.counters["commit_ratio"] = Median(ratio);
}
BENCHMARK(BM_CommitsNotReplicated)->Arg(5)->Iterations(1)->Unit(benchmark::kSecond);

void BM_Footprint(benchmark::State& state) {
  WorkerResult plain, loaded, replicated;
  for (auto _ : state) {
    WorkerRun run;
    run.workload = "bot";
    run.rows = 200000;
    run.commits = 2000;
    run.mode = "plain";
    plain = RunWorker(run);
    run.mode = "loaded";
    loaded = RunWorker(run);
    run.mode = "replicated";
    replicated = RunWorker(run);
  }
  state.counters["load_ms"] = loaded.load_ms;
  state.counters["rss_loaded_kb"] = static_cast<double>(loaded.rss_kb - plain.rss_kb);
  state.counters["rss_replicated_kb"] = static_cast<double>(replicated.rss_kb - plain.rss_kb);
  state.counters["threads"] = static_cast<double>(replicated.threads - plain.threads);
  state.counters["descriptors"] = static_cast<double>(replicated.descriptors - plain.descriptors);
  state.counters["idle_switches_5s"] = static_cast<double>(replicated.idle_switches);
}
BENCHMARK(BM_Footprint)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace guildlite::bench

int main(int argc, char** argv) {
  guildlite::bench::MaybeBeWorker(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
