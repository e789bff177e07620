"""Benchmarks that can be trusted: ours and the peers in turn, in one run, checked before and after.

| module | |
|---|---|
| `statistics` | medians with their intervals, and what can be said of a ratio |
| `timing` | rounds in which every contestant is timed once, until the ratios settle |
| `machine` | what the figures were taken on, and the ceilings measured in the same run |
| `problems` | the tests' cases as work to time, and what results must be |
| `taps` | convolution and pooling in NumPy, a filter tap at a time |
| `peers`, `torch_peer` | others to compare with: NumPy and PyTorch; more can be added |
| `cudnn` | cuDNN itself, every algorithm of its convolutions |
| `run` | one case of a kernel: check, time, check again |
| `whole` | whole operations through the engine, forward and backward |
| `tape` | what the engine costs an operation |
| `networks`, `torch_networks` | training steps of whole networks |
| `goals` | what is meant to be reached beside PyTorch, row by row |
| `pipeline` | clips a second from video files, and how long a training waits for them |
| `gpu` | events, a flushed cache, graphs and clocks, for times on a GPU |
| `results`, `plot` | JSON, CSV, Markdown, the comparison of two files, the roofline |

>>> from tinyvid.bench.run import Settings, kernel_cases, measure
>>> settings = Settings(seconds=5)
>>> measured = [measure(work, settings) for work in kernel_cases("conv3d", ["c3d_conv2"])]
"""
