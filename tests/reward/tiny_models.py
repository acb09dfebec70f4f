"""Language models of a few thousand parameters, made on the spot."""

from __future__ import annotations

import pytest

TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}{% endif %}"
)


def tokenizer(texts):
    """One token a word of ``texts``."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = sorted({word for text in texts for word in text.lower().split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[EOS]"]
    vocabulary = {word: i for i, word in enumerate(special + words)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
        sep_token="[SEP]", eos_token="[EOS]", chat_template=TEMPLATE, model_max_length=64,
    )  # fmt: skip


def _config(kind, words, **options):
    import transformers

    common = {
        "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
        "pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, **options,
    }  # fmt: skip
    return getattr(transformers, f"{kind}Config")(**common)


def classifier(kind, words, **options):
    """Sequence classifier with one output."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    name = f"{kind}ForSequenceClassification"
    return getattr(transformers, name)(_config(kind, words, num_labels=1, **options))


def language_model(words, folder):
    """Causal language model that knows the folder it can be loaded from again."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(_config("Llama", words)).save_pretrained(folder)
    words.save_pretrained(folder)
    return transformers.LlamaForCausalLM.from_pretrained(folder)
