"""Computes statistics of norms and comparisons of two arms, in float64.

The code follows the definitions of Statistics and Comparison in
proto/qkscope/v1/analysis.proto.
"""

import numpy as np

ROWS_AT_ONCE = 256  # A vocabulary is wide: 256 x 49,152 float64 are 100 MB.


def statistics(
    norms: np.ndarray, wavelengths: list[float], massive_over: float, top_n: int
) -> dict:
    """Returns the Statistics of norms (heads, head_dim).

    wavelengths: tokens, by frequency index; empty without RoPE. Dims d and d +
    rotary_dims / 2 share index d. massive_over: lambda. Non-finite entries
    count only in non_finite_count. None means absent (ratio and max: NaN). narrowest: the smallest
    |norm / threshold - 1|.
    """
    norms = norms.astype(np.float64)
    entries, narrowest = [], np.inf
    for head, row in enumerate(norms):
        finite = np.isfinite(row)
        mean = row[finite].mean() if finite.any() else 0.0
        if mean == 0.0:
            continue
        for dim in np.flatnonzero(finite):
            ratio = row[dim] / mean
            entries.append((ratio, head, int(dim), row[dim]))
            narrowest = min(narrowest, abs(ratio / massive_over - 1.0))
    entries.sort(key=lambda e: (-e[0], e[1], e[2]))
    massive = [e for e in entries if e[0] > massive_over]

    top_dim = top_dim_share = low_share = None
    if massive:
        counts = np.bincount([e[2] for e in massive])
        top_dim = int(counts.argmax())
        top_dim_share = counts[top_dim] / len(massive)
    frequencies = len(wavelengths)
    rotated = [e[2] for e in massive if e[2] < 2 * frequencies]
    if rotated:
        low = [d for d in rotated if d % frequencies >= frequencies / 2]
        low_share = len(low) / len(rotated)

    def listed(entry) -> dict:
        ratio, head, dim, norm = entry
        turns = dim < 2 * frequencies
        return {
            "head": head,
            "dim": dim,
            "norm": norm,
            "ratio": ratio,
            "wavelength": wavelengths[dim % frequencies] if turns else None,
        }

    finite_norms = norms[np.isfinite(norms)]
    nothing = None if finite_norms.size == 0 else 0.0
    return {
        "massive_count": len(massive),
        "ratio": entries[0][0] if entries else nothing,
        "max": finite_norms.max() if finite_norms.size else None,
        "top_dim": top_dim,
        "top_dim_share": top_dim_share,
        "low_frequency_share": low_share,
        "non_finite_count": int((~np.isfinite(norms)).sum()),
        "top": [listed(e) for e in massive[:top_n]],
        "largest": listed(entries[0]) if entries else None,
        "narrowest": narrowest,
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Computes log-softmax of each row of logits (T, vocab), in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def compare(base: np.ndarray, arm: np.ndarray, ids: list[int]) -> dict:
    """Compares an arm with its baseline; both are logits (T, vocab).

    Entry t of kl (nats), top1_id and top1_flip is for the distribution after
    token t; entry t of token_logprob is for token t, and entry 0 is 0.
    """
    tokens = len(ids)
    kl, logprob = np.zeros(tokens), np.zeros(tokens)
    for begin in range(0, tokens, ROWS_AT_ONCE):
        rows = slice(begin, min(begin + ROWS_AT_ONCE, tokens))
        log_base, log_arm = log_softmax(base[rows]), log_softmax(arm[rows])
        kl[rows] = (np.exp(log_base) * (log_base - log_arm)).sum(axis=-1)
        following = ids[rows.start + 1 : rows.stop + 1]
        logprob[rows.start + 1 : rows.start + 1 + len(following)] = log_arm[
            np.arange(len(following)), following
        ]
    top1 = arm.argmax(axis=-1)  # Ties to the lowest id.
    flips = top1 != base.argmax(axis=-1)
    return {
        "kl": kl.tolist(),
        "top1_flip": flips.tolist(),
        "token_logprob": logprob.tolist(),
        "mean_kl": kl.mean(),
        "top1_flips": int(flips.sum()),
        "mean_logprob": logprob[1:].mean() if len(ids) > 1 else 0.0,
        "top1_id": top1.tolist(),
    }
