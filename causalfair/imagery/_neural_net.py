"""A network of sequences of frame features with one head a potential outcome (needs torch)."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.optional import import_optional
from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import ConvergenceError

__all__ = ["Frames", "Trained", "train_network"]

BATCH = 128
CLOCKS = 3  # frequencies of the time encoding


@dataclass(frozen=True)
class Frames:
    """Frame features of places.

    Attributes
    ----------
    phi : ndarray of shape (R, T, D), float32
        Features, zero where a frame is not seen.
    seen : ndarray of shape (R, T), bool
        Frames that can be used.
    when : ndarray of shape (R, T)
        Years before the baseline.
    """

    phi: Any
    seen: BoolArray
    when: FloatArray

    def take(self, rows: IntArray) -> Frames:
        """Some of the places."""
        return Frames(self.phi[rows], self.seen[rows], self.when[rows])


@dataclass(frozen=True)
class _Scale:
    """Means and spreads of the training data."""

    mean: FloatArray
    sd: FloatArray
    late: float
    span: float
    center: float
    spread: float

    @classmethod
    def of(cls, frames: Frames, y: FloatArray) -> _Scale:
        values = frames.phi[frames.seen]
        sd = values.std(axis=0)
        when = frames.when[frames.seen]
        return cls(
            values.mean(axis=0), np.where(sd > 1e-6, sd, 1.0), float(when.mean()),
            float(when.std()) or 1.0, float(y.mean()), float(y.std()) or 1.0,
        )  # fmt: skip

    def tokens(self, frames: Frames) -> Any:
        """Frames as tokens (R, T, 2 D + 2 CLOCKS): features, features times time, and clocks."""
        torch = import_optional("torch", extra="torch")
        phi = (frames.phi - self.mean) / self.sd * frames.seen[..., None]
        t = np.where(frames.seen, (frames.when - self.late) / self.span, 0.0)
        rate = 2.0 ** np.arange(CLOCKS)
        angle = t[..., None] * rate
        parts = [phi, phi * t[..., None], np.sin(angle), np.cos(angle)]
        return torch.from_numpy(np.concatenate(parts, axis=-1).astype(np.float32))


def build_network(width_in: int, width: int, heads: int) -> Any:
    """Attention over frames, a shared layer, and two heads: outcome untreated, and effect."""
    torch = import_optional("torch", extra="torch")
    nn = torch.nn

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.key = nn.Linear(width_in, heads)
            self.value = nn.Linear(width_in, heads * width)
            self.shared = nn.Sequential(
                nn.LayerNorm(heads * width), nn.Linear(heads * width, width), nn.GELU()
            )
            self.outcome, self.effect = nn.Linear(width, 1), nn.Linear(width, 1)
            nn.init.zeros_(self.effect.weight)  # one effect for all to start with
            nn.init.zeros_(self.effect.bias)

        def forward(self, tokens: Any, seen: Any) -> Any:
            logits = self.key(tokens).masked_fill(~seen[..., None], -torch.inf)
            weight = torch.softmax(logits, dim=1)  # (b, T, heads)
            values = self.value(tokens).unflatten(2, (heads, width))
            pooled = (weight[..., None] * values).sum(dim=1).flatten(1)
            hidden = self.shared(pooled)
            return torch.cat([self.outcome(hidden), self.effect(hidden)], dim=1)

    return Network()


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes
    ----------
    state : dict of str to ndarray
        Its weights.
    sizes : tuple of int
        Inputs of a token, width, heads.
    scale : _Scale
        Standardisation.
    losses : ndarray of shape (epochs,)
        R-loss of the units held out, epoch by epoch.
    """

    state: dict[str, Any]
    sizes: tuple[int, int, int]
    scale: _Scale
    losses: FloatArray

    def predict(self, frames: Frames) -> FloatArray:
        """Outcome untreated and effect of places, (R, 2), in units of the outcome."""
        torch = import_optional("torch", extra="torch")
        tokens, seen = self.scale.tokens(frames), torch.from_numpy(frames.seen)
        with _one_thread(), torch.no_grad():
            network = build_network(*self.sizes).eval()
            network.load_state_dict({k: torch.from_numpy(v) for k, v in self.state.items()})
            out = torch.cat(
                [network(a, b) for a, b in zip(tokens.split(1024), seen.split(1024), strict=True)]
            )
        values = out.numpy().astype(np.float64) * self.scale.spread
        values[:, 0] += self.scale.center
        return np.asarray(values)


@contextmanager
def _one_thread(seed: int | None = None) -> Any:
    """One thread, for the same bits everywhere, and random numbers of their own."""
    torch = import_optional("torch", extra="torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Settings:
    """Sizes and training."""

    width: int
    heads: int
    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    noise: float


def train_network(
    frames: Frames, row: IntArray, y: FloatArray, w: FloatArray, e: FloatArray,
    weight: FloatArray, held_out: BoolArray, settings: Settings, seed: int,
) -> Trained:  # fmt: skip
    """Fit by least squares; stop when the R-loss of the units held out has not fallen for long.

    Parameters
    ----------
    frames : Frames
        Places.
    row : ndarray of shape (n,)
        Place of each unit.
    y, w, e, weight : ndarray of shape (n,)
        Outcome, treatment, its probability, and sampling weight.
    held_out : ndarray of shape (n,), bool
        Units that decide when to stop.
    settings : Settings
        Sizes and training.
    seed : int
        Seed of weights, batches and noise.

    Returns
    -------
    Trained
        The network of the epoch with the least R-loss.

    Raises
    ------
    ConvergenceError
        No epoch has a finite loss.
    """
    torch = import_optional("torch", extra="torch")
    learn = np.flatnonzero(~held_out & (weight > 0))
    scale = _Scale.of(frames.take(np.unique(row[learn])), y[learn])
    tokens, seen = scale.tokens(frames), torch.from_numpy(frames.seen)
    standard = (y - scale.center) / scale.spread
    data = [torch.from_numpy(np.asarray(v, dtype=np.float32)) for v in (standard, w, weight)]
    left = (standard - _expected_outcome(tokens, frames.seen, row, standard, weight, learn))[
        held_out
    ]
    step = (w - e)[held_out]
    place, held = torch.from_numpy(row), torch.from_numpy(np.flatnonzero(held_out))
    sizes = (tokens.shape[2], settings.width, settings.heads)
    best, least, losses = None, np.inf, []
    with _one_thread(seed):
        network = build_network(*sizes)
        descent = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        for epoch in range(settings.epochs):
            network.train()
            order = torch.from_numpy(learn)[torch.randperm(learn.size)]
            for units in order.split(BATCH):
                batch = tokens[place[units]]
                batch = batch + settings.noise * torch.randn_like(batch)
                out = network(batch, seen[place[units]])
                error = data[0][units] - out[:, 0] - data[1][units] * out[:, 1]
                loss = (data[2][units] * error**2).mean()
                descent.zero_grad()
                loss.backward()
                descent.step()
            effect = _effects(network, tokens[place[held]], seen[place[held]])
            losses.append(float(np.average((left - step * effect) ** 2, weights=weight[held_out])))
            if losses[-1] < least:
                least = losses[-1]
                best = {k: v.detach().clone().numpy() for k, v in network.state_dict().items()}
            if epoch - int(np.argmin(losses)) >= settings.patience:
                break
    if best is None:
        raise ConvergenceError(
            "NeuralSequenceEffects.fit: the loss of a network was never finite; lower "
            f"learning_rate={settings.learning_rate:g}."
        )
    return Trained(best, sizes, scale, np.array(losses))


def _effects(network: Any, tokens: Any, seen: Any) -> FloatArray:
    torch = import_optional("torch", extra="torch")
    network.eval()
    with torch.no_grad():
        return np.asarray(network(tokens, seen)[:, 1].numpy().astype(np.float64))


def _expected_outcome(
    tokens: Any, seen: BoolArray, row: IntArray, y: FloatArray, weight: FloatArray, learn: IntArray
) -> FloatArray:
    """Outcome expected given images, (n,), by a ridge on tokens averaged over time.

    The R-loss judges effects only if what it takes out of the outcome is not the network's own.
    """
    from sklearn.linear_model import RidgeCV

    share = seen / seen.sum(axis=1, keepdims=True)
    pooled = np.einsum("rt,rtd->rd", share, tokens.numpy())[row]
    ridge = RidgeCV(np.logspace(-2, 4, 13)).fit(pooled[learn], y[learn], weight[learn])
    return np.asarray(ridge.predict(pooled))
