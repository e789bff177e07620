// A launch: the blocks of the grid, handed to OS threads, and what Python calls to start it.
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#include "crash.h"
#include "state.h"

using namespace emulator;

namespace {

struct Engine {  // a worker and the block it works on, kept from launch to launch
  Worker worker;
  Block block;
};

std::vector<std::unique_ptr<Engine>> engines;

// The block that runs `i`-th of `count`. Shuffled: i a + b modulo count, a prime to count.
long in_order(long i, long count) {
  if (state.order == Order::forward) return i;
  if (state.order == Order::reversed) return count - 1 - i;
  auto divisor = [](long a, long b) {
    while (b) {
      long rest = a % b;
      a = b, b = rest;
    }
    return a;
  };
  long a = 2 * (static_cast<long>(state.seed) * 7919 % count) + 1;
  while (divisor(a, count) != 1) a += 2;
  return static_cast<long>((static_cast<__int128>(i) * a + state.seed) % count);
}

void enter(Engine& engine) {
  worker = &engine.worker;
  worker->fault = {};
  worker->thread = nullptr;
  worker->random = state.seed * 2654435761u | 1;
}

// Take blocks until there are none left, or one fails. `after_each` may start helpers.
template <class AfterEach>
void take_blocks(Engine& engine, std::atomic<long>& next, std::atomic<bool>& failed, long count,
                 AfterEach after_each) {
  HandlerStack handler_stack;
  enter(engine);
  while (!failed && !interrupted) {
    long i = next++;
    if (i >= count) return;
    start_block(engine.block, in_order(i, count));
    now.block = engine.block.number;
    block_index = engine.block.index;
    checker::block_begin();
    run_block(engine.block);
    if (worker->failed) failed = true;
    if (!worker->failed) checker::block_end();
    after_each(count - i - 1);
  }
}

// Blocks that need not wait for each other. A second OS thread costs about as much as a small
// launch takes, so there is none until the launch has shown that it is not small.
void run_independent(long count, int workers) {
  std::atomic<long> next{0};
  std::atomic<bool> failed{false};
  std::vector<std::thread> helpers;
  std::mutex mutex;
  std::condition_variable ended;
  size_t at_work = 0;
  auto begin = std::chrono::steady_clock::now();
  take_blocks(*engines[0], next, failed, count, [&](long left) {
    if (left < 2 || !helpers.empty() || workers < 2) return;
    if (std::chrono::steady_clock::now() - begin < std::chrono::microseconds(300)) return;
    while (engines.size() < static_cast<size_t>(workers)) engines.emplace_back(new Engine);
    for (int i = 1; i < workers && i <= left; i++) {
      engines[i]->worker.helper = true;
      at_work++;
      helpers.emplace_back([&, i] {
        take_blocks(*engines[i], next, failed, count, [](long) {});
        std::lock_guard<std::mutex> lock(mutex);
        at_work--;
        ended.notify_one();
      });
    }
  });
  // Ctrl-C reaches this thread. The others may spin: hand it on, until each has noticed.
  std::unique_lock<std::mutex> lock(mutex);
  while (!ended.wait_for(lock, std::chrono::milliseconds(50), [&] { return at_work == 0; }))
    for (std::thread& helper : helpers)
      if (interrupted) pthread_kill(helper.native_handle(), SIGINT);
  lock.unlock();
  for (std::thread& helper : helpers) helper.join();
}

// All blocks alive at once, each with its own threads and shared memory: they run in turn, each
// as far as the next barrier of the grid.
void run_cooperative(long count) {
  Engine& engine = *engines[0];
  HandlerStack handler_stack;
  enter(engine);
  std::vector<std::unique_ptr<Block>> blocks;
  for (long i = 0; i < count; i++) {
    blocks.emplace_back(new Block);
    start_block(*blocks[i], i);
  }
  auto stand_for = [&](Block& block) {
    worker->block = &block;
    block_index = block.index;
    now.block = block.number;
    checker::block_switch();
  };
  for (long round = 0;; round++) {
    long waiting = 0;
    Block* finished = nullptr;
    for (long i = 0; i < count; i++) {
      Block& block = *blocks[in_order(i, count)];
      stand_for(block);
      if (round == 0) checker::block_begin();
      if (run_block(block))
        waiting++;
      else
        finished = &block;
      if (worker->failed || interrupted) return;
    }
    Block& first = *blocks[0];
    if (waiting == 0) break;
    if (finished) {
      for (auto& block : blocks)
        if (block->barrier == Barrier::grid) {
          stand_for(*block);
          set_fault(block->threads[block->first], "divergent barrier", block->site,
                    "it waits at grid_sync, which block (%u, %u, %u) never reaches: it has ended",
                    finished->index.x, finished->index.y, finished->index.z);
          return;
        }
    }
    for (auto& block : blocks) {
      if (!same(block->site, first.site)) {
        stand_for(*block);
        worker->fault.other = first.site;
        set_fault(block->threads[block->first], "divergent barrier", block->site,
                  "it waits at grid_sync while block (%u, %u, %u) waits at the one in line %d",
                  first.index.x, first.index.y, first.index.z, first.site.line);
        return;
      }
    }
    checker::grid_barrier(first.site);
    for (auto& block : blocks) release_barrier(*block);
  }
  for (auto& block : blocks) {
    stand_for(*block);
    checker::block_end();
  }
}

}  // namespace

// What module.py hands over; the fields in this order, as its ctypes structure has them.
struct Request {
  unsigned grid[3], block[3];
  size_t dynamic_shared;
  void* const* arguments;
  const Region* regions;
  int region_count;
  int order;  // 0 forward, 1 reversed, 2 shuffled
  unsigned seed;
  int copies_late, cooperative, workers;
  int python_only_raises;  // at Ctrl-C: see crash.h
};

extern "C" {

// One launch at a time. Returns 0, or 1 after a fault, which is then in `fault`; -1 when memory
// runs out.
__attribute__((visibility("default"))) int emulator_launch(const Kernel* kernel,
                                                           const Request* request, Fault* fault) {
  Triple grid{request->grid[0], request->grid[1], request->grid[2]};
  Triple block{request->block[0], request->block[1], request->block[2]};
  unsigned long serial = state.serial + 1;
  state = {};
  state.launch = {kernel->name, grid, block, request->dynamic_shared, request->regions,
                  request->region_count, request->copies_late != 0};
  state.kernel = kernel;
  state.arguments = request->arguments;
  state.order = static_cast<Order>(request->order);
  state.seed = request->seed;
  state.cooperative = request->cooperative != 0;
  state.serial = serial;
  state.array_end = 256 + request->dynamic_shared;  // dynamic shared memory comes first
  grid_size = grid;
  block_size = block;
  try {
    if (engines.empty()) engines.emplace_back(new Engine);
    for (auto& engine : engines) engine->worker.failed = false;
    checker::launch_begin(state.launch);
    CatchCrashes catch_crashes(request->python_only_raises);
    long count = static_cast<long>(grid.x) * grid.y * grid.z;
    if (state.cooperative)
      run_cooperative(count);
    else
      run_independent(count, request->workers);
  } catch (const std::bad_alloc&) {
    return -1;
  }
  checker::launch_end();
  fflush(stdout);  // what `printf` has left, before Python prints
  for (auto& engine : engines) {
    if (engine->worker.failed) {
      *fault = engine->worker.fault;
      return 1;
    }
  }
  if (!interrupted) return 0;
  *fault = {"interrupted", {"", 0}, {}, {}, {}, "", 0};  // between two blocks
  return 1;
}

__attribute__((visibility("default"))) void emulator_sizes(size_t* request, size_t* fault) {
  *request = sizeof(Request);
  *fault = sizeof(Fault);
}
}
