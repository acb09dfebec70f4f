"""Cost of random convolutional features: against torch, against the loops, and in sizes.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_imagery.py --benchmark-only``. The
ratios are in the column ``extra_info`` of the JSON that pytest-benchmark writes, and asserted where
a claim rests on them. The comparison with torch needs torch, and skips without.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from naive import imagery as naive

from causalfair.imagery import ImageSequence, RandomConvolutionFeatures, SequenceFeatures

FILTERS, BIAS = 128, 0.3


def frames(n: int, size: int = 64, bands: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((n, 1, size, size, bands), dtype=np.float32)


def encoder(images: np.ndarray, filters: int = FILTERS, **options) -> RandomConvolutionFeatures:
    made = RandomConvolutionFeatures(
        2 * filters, bias=BIAS, n_patches=2000, band_statistics=False, random_state=0, **options
    )
    made.fit(images[:20]).transform(images[:1])  # compile
    return made


def seconds(run, repeats: int = 3) -> float:
    """Least CPU time of a few runs on one thread: other work on the machine does not count."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def torch_features(made: RandomConvolutionFeatures, frame_block: int):
    """The same features by torch: one frame block of response maps at a time, none kept."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    filters = torch.from_numpy(made.filters_.transpose(0, 3, 1, 2).copy())

    def run(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        out = []
        with torch.no_grad():
            for block in x.split(frame_block):
                z = torch.nn.functional.conv2d(block, filters)
                up = torch.relu(z - made.bias_).mean(dim=(2, 3))
                down = torch.relu(-z - made.bias_).mean(dim=(2, 3))
                out.append(torch.cat([up, down], dim=1))
        return torch.cat(out).numpy()

    return run


@pytest.mark.parametrize("size", [35, 64, 128])
def test_faster_than_a_torch_convolution(benchmark, size):
    """One thread each; torch takes frames one at a time, its best on one core."""
    images = frames(60 if size < 100 else 20, size)
    made = encoder(images)
    by_torch = torch_features(made, 1)
    ours = made.transform(images)[:, 0]
    theirs = by_torch(images[:, 0])
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    mine, other = [], []
    for _ in range(5):  # in turn, so that other work on the machine hits both
        mine.append(seconds(lambda: made.transform(images), 1))
        other.append(seconds(lambda: by_torch(images[:, 0]), 1))
    benchmark.pedantic(made.transform, args=(images,), rounds=1)
    ratio = min(other) / min(mine)
    work = len(images) * (size - 2) ** 2 * FILTERS * 36
    benchmark.extra_info.update(
        torch_over_ours=ratio, giga_multiply_adds_a_second=work / min(mine) / 1e9
    )
    assert ratio > 1


def test_faster_than_the_loops(benchmark):
    images = frames(2, 24)
    made = encoder(images, 32)
    valid = np.ones((2, 24, 24), bool)
    loops = seconds(lambda: naive.rectified_means(images[:, 0], valid, made.filters_, BIAS), 1)
    benchmark(made.transform, images)
    benchmark.extra_info["loops_over_ours"] = loops / seconds(lambda: made.transform(images))


@pytest.mark.parametrize("n", [50, 100, 200])
def test_cost_is_linear_in_frames(benchmark, n):
    images = frames(n, 32)
    made = encoder(images, 32)
    benchmark.pedantic(made.transform, args=(images,), rounds=3)


def test_cost_of_reading_in_blocks(benchmark):
    """Blocks of a tenth of the stack against all at once."""
    images = frames(200, 48)
    features = SequenceFeatures(encoder(images, 16))
    whole = seconds(lambda: features.fit_transform(ImageSequence(images)))
    small = ImageSequence(images, memory_limit=images.nbytes // 10)
    benchmark.pedantic(features.fit_transform, args=(small,), rounds=3)
    benchmark.extra_info["blocks_over_whole"] = (
        seconds(lambda: features.fit_transform(small)) / whole
    )
