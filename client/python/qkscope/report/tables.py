"""The tables of a report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from qkscope.plot import _data, sparkline
from qkscope.report import maps
from qkscope.report.page import Html, element, join, table

MOST_ROWS = 3000  # of statistics, in all tables together
MOST_POSITIONS = 300
MOST_MANIFEST = 200_000  # characters
LIST = 400  # characters of a list in a cell


def number(value: Any, digits: int = 4) -> str:
    """Like 5.678; "nan" and "inf" as they are; nothing for nothing."""
    return "" if value is None else f"{float(value):.{digits}g}"


def lambda_of(run: Any) -> float:
    """The request's lambda; 5 where the manifest has none."""
    statistics = run.manifest.expanded.statistics
    value = float(getattr(statistics, "lambda", 0.0))
    return value if np.isfinite(value) and value > 0 else 5.0


def summary(run: Any) -> Html:
    manifest = run.manifest
    facts = [("model", maps.short(manifest.model)),
             ("tokens", len(run.token_ids)),
             ("arms", len(list(run.arms))),
             ("computed in", manifest.compute_type),
             ("on", maps.short(" ".join(filter(
                 None, [manifest.backend, manifest.device])))),
             ("server", maps.short(manifest.server_version)),
             ("tag", maps.short(manifest.client_tag))]
    return element("dl", join(
        element("div", join([element("dt", name), element("dd", value)]))
        for name, value in facts if value not in ("", 0)))


def arms(run: Any) -> Html:
    """A row per arm: its kind, and its comparison with the baseline."""
    rows = []
    for name, arm in maps.shown_arms(run):
        values = arm.comparison
        cells: list[Any] = [name, arm.kind, "", "", "", "", ""]
        if values is not None:
            length = len(values.kl)
            cells[2:] = [
                number(values.mean_logprob), number(values.mean_kl),
                f"{values.top1_flips}/{length}", maps.short(values.baseline),
                Html(sparkline(np.asarray(values.kl, float)[:400], low=0,
                               width=160))]
        rows.append(cells)
    notes = ("Log-probability: mean over the prompt's tokens, in nats. KL: "
             "mean over positions, in nats, from the baseline. Flips: "
             "positions whose most likely next token is another. A rule that "
             "chooses by the whole prompt has seen later tokens: its numbers "
             "are not causal.")
    return join([table(["arm", "kind", "log-prob", "KL", "flips", "from",
                        "KL by position"], rows),
                 element("p", notes, class_="soft")])


def statistics(run: Any) -> Html:
    """A table per arm and tensor, with the server's statistics where there are
    any, and else ours."""
    shown: list[Html] = []
    left, lambda_ = MOST_ROWS, lambda_of(run)
    dropped = 0
    for name, arm in maps.shown_arms(run):
        for capture in arm.captured:
            if maps.unshown(capture):
                continue
            if len(capture.layers) > left:
                dropped += 1
                continue
            left -= len(capture.layers)
            title = f"{name}: {maps.label(capture)}"
            shown.append(element("details", join([
                element("summary", title),
                table(["layer", "massive", "ratio", "head", "dim",
                       "wavelength", "largest norm", "in slow dims",
                       "not finite"],
                      _rows(capture, lambda_))])))
    if dropped:
        shown.append(element("p", f"{dropped} more tables are left out: "
                             f"together they have over {MOST_ROWS} rows.",
                             class_="soft"))
    if shown:
        shown.append(element(
            "p", f"Massive: norms over {lambda_:g} times the mean of their "
            "head. Ratio: the largest norm over the mean of its head, and its "
            "head and dim. Wavelength: tokens per turn of that dim's RoPE "
            "pair. In slow dims: the share of massive values in the slower "
            "half of the pairs.", class_="soft"))
    return join(shown)


def _rows(capture: Any, lambda_: float) -> list[list[Any]]:
    known = {int(s.layer): s for s in capture.statistics or ()}
    return [_row(capture, int(layer), known.get(int(layer)), lambda_)
            for layer in capture.layers]


def _row(capture: Any, layer: int, known: Any, lambda_: float) -> list[Any]:
    """The server's statistics of a layer, `known`, or else ours."""
    if known is None:
        norms = _data.reduced(capture, layer)
        ratio = _data.ratios(norms)
        head: Any = ""
        dim: Any = ""
        if np.isfinite(ratio).any():
            place, dim = np.unravel_index(np.nanargmax(ratio), ratio.shape)
            head = _data.norms(capture, layer).heads[int(place)]
        return [layer, *(number(_data.statistic(norms, name, lambda_))
                         for name in ("massive_count", "ratio")),
                head, dim, "", number(_data.statistic(norms, "max", lambda_)),
                "", number(_data.statistic(norms, "non_finite_count",
                                           lambda_))]
    largest = known.largest
    return [layer, known.massive_count, number(known.ratio),
            "" if largest is None else largest.head,
            "" if largest is None else largest.dim,
            "" if largest is None else number(largest.wavelength),
            number(known.max), number(known.low_frequency_share, 3),
            known.non_finite_count]


def positions(run: Any) -> Html:
    """A row per position; of many, those with the largest KL."""
    compared = [arm for _, arm in maps.shown_arms(run)
                if arm.comparison is not None]
    others = [arm for arm in compared
              if arm.comparison.baseline != arm.name] or compared
    if not others:
        return Html()
    others = others[:8]
    length = max(len(arm.comparison.kl) for arm in others)
    order = np.arange(length)
    note = ""
    if length > MOST_POSITIONS:
        largest = np.zeros(length)
        for arm in others:
            kl = np.asarray(arm.comparison.kl, float)
            np.maximum(largest[:len(kl)], np.nan_to_num(kl, nan=np.inf),
                       out=largest[:len(kl)])
        order = np.sort(np.argsort(-largest, kind="stable")[:MOST_POSITIONS])
        note = (f"The {MOST_POSITIONS} positions of {length} with the largest "
                "KL.")
    head: list[Any] = ["position", "token"]
    for arm in others:
        head += [f"{maps.short(arm.name)}: KL", "log-prob", "next token"]
    rows = []
    for at in map(int, order):
        cells: list[Any] = [at, _at(run.token_ids, at)]
        for arm in others:
            values = arm.comparison
            token = str(_at(values.top1_id, at))
            cells += [number(_at(values.kl, at)),
                      number(_at(values.token_logprob, at)) if at else "",
                      token + (" flipped" if _at(values.top1_flip, at) is True
                               or _at(values.top1_flip, at) == 1 else "")]
        rows.append(cells)
    return element("details", join([
        element("summary", f"{len(rows)} positions"),
        element("p", note, class_="soft") if note else "",
        table(head, rows)]))


def _at(values: Any, place: int) -> Any:
    return values[place] if 0 <= place < len(values) else ""


def manifest_json(run: Any) -> str:
    """The manifest as indented JSON, with the proto's own field names."""
    from google.protobuf import json_format

    return json.dumps(json_format.MessageToDict(
        run.manifest, preserving_proto_field_name=True), indent=1,
        ensure_ascii=False)


def manifest(run: Any) -> Html:
    """The main facts as a table, and the whole as JSON."""
    proto = run.manifest
    facts = [("weights, SHA-256", proto.weights_sha256),
             ("tokenizer, SHA-256", proto.tokenizer_sha256),
             ("kernels", ", ".join(proto.kernel_ids)),
             ("libraries", ", ".join(f"{name} {version}" for name, version
                                     in sorted(
                                         proto.library_versions.items()))),
             ("token ids", " ".join(map(str, proto.token_ids[:LIST])))]
    rows = [(name, value if len(value) <= LIST else
             value[:LIST] + " \N{HORIZONTAL ELLIPSIS}")
            for name, value in facts if value]
    text = manifest_json(run)
    note = ""
    if len(text) > MOST_MANIFEST:
        note = (f"The first {MOST_MANIFEST} of {len(text)} characters; the "
                "file itself has all.")
        text = text[:MOST_MANIFEST]
    return join([
        table(["", ""], [[name, Html(element("code", value))]
                         for name, value in rows]) if rows else "",
        element("details", join([
            element("summary", "The whole manifest"),
            element("p", note, class_="soft") if note else "",
            element("pre", text)]))])
