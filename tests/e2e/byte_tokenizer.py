"""A tokenizer.json of a few bytes and merges, for models that have none."""


def byte_tokenizer(vocab, merges):
    """`vocab`: the pieces by id. `merges`: "a b", the first one goes first."""
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
                          "trim_offsets": True, "use_regex": True},
        "post_processor": None, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False,
                  "vocab": {piece: i for i, piece in enumerate(vocab)},
                  "merges": merges}}
