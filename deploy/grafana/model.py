"""The dashboard of one model: what it costs, how fast it is, and what its
layers look like."""

from panels import heatmap, lines, query, stat, table, variables

TITLE = "qkscope: model"
TEXT = "One model: tokens, passes, memory, loading, speed, and its layers."
VARIABLES = variables(
    ["qkscope_model_ready", "qkscope_activation_samples_total"],
    "qkscope_model_ready", layers=True)

EVERY = "30s"


def _rate(metric, by=""):
    return f"sum{by} (rate({metric}{{@model}}[$__rate_interval]))"


def _now():
    return [
        stat("Servers that have it ready",
             "0: it loads, failed to load or was unloaded; qkctl models says "
             "which.", "short", query("sum(qkscope_model_ready{@model})"),
             steps=[(None, "red"), (1, "green")], graph=False,
             alerts=["QkscopeModelNotReady"]),
        stat("Time to load", "How long the last load took, on the server where "
             "it took longest.", "s",
             query("max(qkscope_model_load_seconds{@model})"), graph=False),
        stat("Memory of the weights",
             "Host memory of weights and workspace, over all servers.", "bytes",
             query('sum(qkscope_model_memory_bytes{@model, memory="host"})'),
             graph=False),
        stat("All tokens", "Prompt and generated tokens, per second.", "short",
             query(_rate("qkscope_prompt_tokens_total") + " + "
                   + _rate("qkscope_generated_tokens_total"))),
        stat("A pass takes", "Mean duration of a forward pass.", "s",
             query(_rate("qkscope_pass_seconds_total") + " / "
                   + _rate("qkscope_passes_total")), nothing="no passes"),
        stat("Passes that failed",
             "Share of the passes. A failed pass ends all requests in it with "
             "an error.", "percentunit",
             query(_rate("qkscope_failed_passes_total") + " / "
                   + _rate("qkscope_passes_total")), nothing="no passes",
             steps=[(0.0001, "red")], alerts=["QkscopePassesFail"]),
    ]


def _work():
    return [
        lines("Tokens", "Per second. A prompt's tokens count once, however "
              "many arms read them.", "short",
              query(_rate("qkscope_prompt_tokens_total"), "prompt"),
              query(_rate("qkscope_generated_tokens_total"), "generated")),
        lines("Passes", "Forward passes per second, by server.", "ops",
              query(_rate("qkscope_passes_total", " by (instance)"),
                    "{{instance}}"), stacked=True),
        lines("Rows of a pass",
              "The mean. A row is one token of one arm; more rows cost little "
              "more time until the device is full.", "short",
              query(_rate("qkscope_pass_rows_total") + " / "
                    + _rate("qkscope_passes_total"), "rows")),
        lines("Duration of a pass",
              "The mean, by server. It grows with rows and with the length of "
              "what attention reads.", "s",
              query(_rate("qkscope_pass_seconds_total", " by (instance)")
                    + " / " + _rate("qkscope_passes_total", " by (instance)"),
                    "{{instance}}")),
        lines("Rows per second of device time",
              "What the device does with this model while it works on it; a "
              "fall without a change of load is a slower device.", "short",
              query(_rate("qkscope_pass_rows_total", " by (instance)") + " / "
                    + _rate("qkscope_pass_seconds_total", " by (instance)"),
                    "{{instance}}")),
        lines("Share of the device",
              "Share of the time in which a server computed passes of this "
              "model.", "percentunit",
              query(_rate("qkscope_pass_seconds_total", " by (instance)"),
                    "{{instance}}"), top=1),
    ]


def _memory():
    return [
        lines("KV cache", "Bytes that sequences hold, and how many may be "
              "held, over all servers. At the limit, requests wait.", "bytes",
              query("sum(qkscope_kv_cache_used_bytes{@model})", "used"),
              query("sum(qkscope_kv_cache_limit_bytes{@model})", "limit"),
              alerts=["QkscopeKvCacheFull"], size=(12, 8)),
        lines("Weights and workspace",
              "Bytes, by server. On a CPU, device memory is a part of the "
              "host's.", "bytes",
              query("sum by (instance, memory) (qkscope_model_memory_bytes"
                    "{@model})", "{{instance}} {{memory}}"), size=(12, 8)),
    ]


def _layers():
    clean = '@model, layer=~"$layer", rope!="before", arm="clean"'

    def of(metric, tensor):
        return (f'max by (layer) (qkscope_activation_{metric}{{{clean}, '
                f'tensor="{tensor}"}})')

    columns = []
    for tensor in "qkv":
        columns += [
            (f"{tensor.upper()} massive", "short",
             of("massive_entries", tensor), ()),
            (f"{tensor.upper()} ratio", "short",
             of("max_mean_ratio", tensor), [(None, "text"), (5, "orange")]),
        ]
    columns.append((
        "Drift", "short",
        'max by (layer) (qkscope_activation_drift_ratio{@model, '
        'layer=~"$layer", tensor=~"$tensor"})',
        [(None, "text"), (0.15, "red")]))
    return [
        table("Layers of the last clean prompt",
              "Massive entries (above 5 times the mean of their head), the "
              "largest ratio, and the largest drift from the baseline, which "
              "is missing without one. The Activations dashboard has more.",
              "layer", columns, size=(12, 14), number_key=True),
        heatmap("Largest ratio, layer by layer",
                "The largest entry over its head's mean, over the chosen "
                "tensors; rows are layers, the first at the bottom.", "short",
                query("max by (layer) (qkscope_activation_max_mean_ratio"
                      '{@layers, rope!="before", arm="clean"})', "{{layer}}"),
                size=(12, 14), interval=EVERY),
    ]


def rows():
    return [("Now", _now()), ("Work", _work()), ("Memory", _memory()),
            ("Layers", _layers())]
