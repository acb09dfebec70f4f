"""Exported files load through ``datasets`` and train with TRL, on models made here."""

from __future__ import annotations

import numpy as np
import pytest
from reward import tiny_models

from causalfair.datasets import make_headlines
from causalfair.reward import DeconfoundedReward, TextFeaturizer, as_reward_function

pytest.importorskip("datasets.arrow_dataset")  # the package, not a folder of that name
import datasets

# The packages below deprecate parts of each other; none of it is ours.
pytestmark = pytest.mark.filterwarnings("default")
KINDS = ("preference", "reward", "unpaired", "prompt", "sft", "weighted")


@pytest.fixture(scope="module")
def reward():
    frame, _ = make_headlines(300, n_categories=4, random_state=0)
    return DeconfoundedReward(
        features=TextFeaturizer(n_components=30, random_state=0), random_state=0
    ).fit(frame, "outcome", text="headline", categorical=["section"])


@pytest.fixture(scope="module")
def pairs(reward):
    sections = reward._data.categorical["section"]
    prompts = [f"Write a headline for section {s}" for s in sections]
    return reward.make_pairs(prompts=prompts, min_prob=0.6)


@pytest.fixture(scope="module", params=[False, True], ids=["standard", "conversational"])
def files(request, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    for kind in KINDS:
        for suffix in (".jsonl", ".parquet"):
            pairs.to_trl(folder / f"{kind}{suffix}", kind=kind, conversational=request.param)
    return request.param, folder


def load(folder, kind, suffix, tmp):
    reader = "json" if suffix == ".jsonl" else "parquet"
    path = str(folder / f"{kind}{suffix}")
    return datasets.load_dataset(reader, data_files=path, split="train", cache_dir=str(tmp))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_load(files, pairs, kind, suffix, tmp_path):
    conversational, folder = files
    loaded = load(folder, kind, suffix, tmp_path)
    want = pairs.records(kind, conversational=conversational)
    assert loaded.to_list() == want
    assert pairs.to_dataset(kind, conversational=conversational).to_list() == want


@pytest.mark.parametrize("kind", KINDS)
def test_format_is_recognised(files, kind, tmp_path):
    check = pytest.importorskip("trl.data_utils")
    conversational, folder = files
    row = load(folder, kind, ".jsonl", tmp_path)[0]
    assert check.is_conversational(row) == conversational
    if kind in ("preference", "reward"):
        # The explicit prompt is kept as it is; an implicit one is split off.
        explicit = check.maybe_extract_prompt(dict(row))
        assert {"chosen", "rejected"} <= set(explicit)
        if kind == "preference":
            assert explicit["prompt"] == row["prompt"]


def test_a_preference_file_unpairs(files, tmp_path):
    check = pytest.importorskip("trl.data_utils")
    _, folder = files
    loaded = load(folder, "preference", ".jsonl", tmp_path).remove_columns("margin")
    flat = check.unpair_preference_dataset(loaded)
    assert set(flat.column_names) == {"prompt", "completion", "label"}
    assert sum(flat["label"]) * 2 == len(flat) == 2 * len(loaded)


def trainer(kind, model, words, dataset, folder, **options):
    trl = pytest.importorskip("trl")
    common = {
        "output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 4,
        "report_to": [], "use_cpu": True, "bf16": False, "logging_steps": 1,
        "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    extra = options.pop("trainer", {})
    arguments = getattr(trl, f"{kind}Config")(**common, **options)
    return getattr(trl, f"{kind}Trainer")(
        model=model, args=arguments, train_dataset=dataset, processing_class=words, **extra
    )


def losses(done):
    return [entry["loss"] for entry in done.state.log_history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [("DPO", "preference"), ("KTO", "unpaired"), ("SFT", "sft")]
)
def test_trainers_take_the_files(files, reward, name, kind, tmp_path):
    _, folder = files
    words = tiny_models.tokenizer([*reward._data.texts, "Write a headline for section s0 s1 s2 s3"])
    model = tiny_models.language_model(words, tmp_path / "model")
    data = load(folder, kind, ".jsonl", tmp_path)
    done = trainer(name, model, words, data, tmp_path)
    done.train()
    assert np.isfinite(losses(done)).all()
    assert len(losses(done)) == 2


@pytest.mark.slow
def test_reward_trainer_takes_margins(files, reward, tmp_path):
    _, folder = files
    words = tiny_models.tokenizer(reward._data.texts)
    model = tiny_models.classifier("Llama", words)
    done = trainer("Reward", model, words, load(folder, "reward", ".jsonl", tmp_path), tmp_path)
    assert "margin" in done.train_dataset.column_names
    done.train()
    assert np.isfinite(losses(done)).all()


@pytest.mark.slow
def test_online_trainer_calls_the_reward(files, reward, tmp_path):
    conversational, folder = files
    words = tiny_models.tokenizer([*reward._data.texts, "Write a headline for section s0 s1 s2 s3"])
    words.padding_side = "left"
    calls = []

    def score(prompts, completions, **kwargs):
        calls.append(as_reward_function(reward)(prompts, completions, **kwargs))
        return calls[-1]

    done = trainer(
        "GRPO", tiny_models.language_model(words, tmp_path / "model"), words,
        load(folder, "prompt", ".jsonl", tmp_path), tmp_path, num_generations=4,
        max_completion_length=6, trainer={"reward_funcs": score},
    )  # fmt: skip
    done.train()
    assert calls
    assert np.isfinite(np.concatenate(calls)).all()
    assert conversational in (True, False)
