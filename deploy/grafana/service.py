"""The dashboard of the service: calls, where their time goes, what runs out,
and who uses it."""

from panels import (OF_QKSCOPE, bars, heatmap, last, lines, query, stat,
                    table, variables)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TITLE = "qkscope: service"
TEXT = ("What users notice (calls, errors, waiting), where a request's time "
        "goes, what runs out first, and who uses the device.")
VARIABLES = variables(["qkscope_build_info"])

HANDLED = "qkscope_rpc_handled_total"
DURATION = "qkscope_rpc_duration_seconds"
PHASE = "qkscope_request_phase_duration_seconds"
FAULT = "UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS"
# A code has no series before its first call. So the good calls are counted:
# without any failure, the ratio is 0 and not missing.
ERROR_RATIO = (
    f'1 - sum(rate({HANDLED}{{@, code!~"{FAULT}"}}[$__rate_interval])) '
    f"/ sum(rate({HANDLED}{{@}}[$__rate_interval]))")


def _quantile(share, by, metric, matchers=""):
    return (f"histogram_quantile({share}, sum by (le{by}) "
            f"(rate({metric}_bucket{{@{matchers}}}[$__rate_interval])))")


def _mean(metric, by=""):
    part = f"sum{by} (rate({metric}_{{}}{{{{@}}}}[$__rate_interval]))"
    return f"{part.format('sum')} / {part.format('count')}"


def _now():
    return [
        stat("Servers that take calls",
             "Share of the servers whose health is SERVING. Below 100 %: look "
             "at the Fleet dashboard for the one that does not.",
             "percentunit", query("avg(qkscope_serving{@})"),
             steps=[(None, "red"), (0.01, "orange"), (1, "green")],
             alerts=["QkscopeDown", "QkscopeNotServing"], decimals=0),
        stat("Calls", "Calls that ended, per second.", "reqps",
             query(f"sum(rate({HANDLED}{{@}}[$__rate_interval]))")),
        stat("Calls that failed",
             "Share of calls that ended by the server's fault (UNKNOWN, "
             "INTERNAL, UNAVAILABLE, DATA_LOSS). Look at the log for the "
             "requests with these codes.",
             "percentunit", query(ERROR_RATIO), nothing="no calls",
             steps=[(0.01, "orange"), (0.05, "red")],
             alerts=["QkscopeErrorRatio"]),
        stat("99 % of the calls end within",
             "The 99th percentile of all calls' durations, streams included. "
             "The panels below say which method and which phase.",
             "s", query(_quantile(0.99, "", DURATION)), nothing="no calls",
             steps=[(60, "orange"), (300, "red")],
             alerts=["QkscopeSlowCalls"]),
        stat("Requests that wait",
             "Requests in the queues of all chosen servers.", "short",
             query("sum(qkscope_queued_requests{@})"),
             alerts=["QkscopeQueueSaturated"]),
        stat("The longest wait",
             "How long the oldest request of a queue has waited. It grows "
             "without end if the device hangs or a reader holds all buffers.",
             "s", query("max(qkscope_queue_oldest_age_seconds{@})"),
             steps=[(30, "orange"), (120, "red")], alerts=["QkscopeQueueAge"]),
    ]


def _calls():
    return [
        lines("Calls by method", "Calls that ended, per second.", "reqps",
              query(f"sum by (method) (rate({HANDLED}{{@}}[$__rate_interval]))",
                    "{{method}}"), stacked=True),
        lines("Calls that did not end with OK, by code",
              "INTERNAL, UNKNOWN and DATA_LOSS are bugs or broken files: "
              "report them. UNAVAILABLE: a model loads or the server drains. "
              "The other codes are answers to what clients sent. A code "
              "appears with its second call.",
              "reqps",
              query(f'sum by (code) (rate({HANDLED}{{@, code!="OK"}}'
                    "[$__rate_interval]))", "{{code}}"),
              alerts=["QkscopeErrorRatio"]),
        lines("Refused before they ran, by reason",
              "queue_full and stream_buffers: there is too much work, or "
              "somebody does not read. user_budget: a user's budget is used "
              "up. memory and response_size: the request is too large. "
              "draining and model_state pass by themselves.",
              "reqps",
              query("sum by (reason) (rate(qkscope_refused_total{@}"
                    "[$__rate_interval]))", "{{reason}}"), stacked=True,
              alerts=["QkscopeQueueSaturated", "QkscopeBudgetExhausted"]),
        lines("Half of the calls end within",
              "The median of durations, by method.", "s",
              query(_quantile(0.5, ", method", DURATION), "{{method}}")),
        lines("99 % of the calls end within, by method",
              "Streams last as long as their readers take. AnalyzeMany and "
              "GetResult may take any time.", "s",
              query(_quantile(0.99, ", method", DURATION), "{{method}}"),
              alerts=["QkscopeSlowCalls"]),
        lines("Ended before their work was done, by cause",
              "client: the client cancelled or went away. deadline: the "
              "client's time was up. stalled: its reader took nothing for "
              "write_stall_timeout_ms. shutdown: the server ended.",
              "reqps",
              query("sum by (reason) (rate(qkscope_cancelled_total{@}"
                    "[$__rate_interval]))", "{{reason}}"), stacked=True,
              alerts=["QkscopeStreamsStalled"]),
        lines("Tokens",
              "Tokens of prompts, and tokens that were generated, per second, "
              "over all models.", "short",
              query("sum(rate(qkscope_prompt_tokens_total{@}"
                    "[$__rate_interval]))", "prompt"),
              query("sum(rate(qkscope_generated_tokens_total{@}"
                    "[$__rate_interval]))", "generated")),
        lines("Results sent", "Bytes handed to gRPC, per second, by server.",
              "Bps",
              query("sum by (instance) (rate(qkscope_streamed_bytes_total{@}"
                    "[$__rate_interval]))", "{{instance}}"), stacked=True),
        lines("Results not read yet",
              "Bytes that wait for readers, the bytes reserved for results, "
              "and how many may be. If reserved stays at the limit, requests "
              "wait although the device is idle: look for clients that do not "
              "read.", "bytes",
              query("sum(qkscope_stream_buffered_bytes{@})", "waiting"),
              query("sum(qkscope_stream_reserved_bytes{@})", "reserved"),
              query("sum(qkscope_stream_limit_bytes{@})", "limit"),
              alerts=["QkscopeStreamBuffersFull"]),
    ]


def _time():
    return [
        lines("A request's time, by phase",
              "Mean duration of each phase, over the requests that had it: in "
              "the queue, in prefill, in decode, copying what is captured (a "
              "part of those two), and streaming (beside them). The highest "
              "is what to make faster.",
              "s", query(_mean(PHASE, " by (phase)"), "{{phase}}")),
        lines("95 % of the requests spend less, by phase",
              "The 95th percentile of each phase. A long tail in the queue "
              "with a short mean: few users wait for a large request.",
              "s", query(_quantile(0.95, ", phase", PHASE), "{{phase}}")),
        heatmap("Time in the queue",
                "How many requests waited how long. A second band far above "
                "the first is a user or a model that others hold up.",
                "short",
                query(f"sum by (le) (increase({PHASE}_bucket"
                      '{@, phase="queue"}[$__rate_interval]))', "{{le}}",
                      form=PromQueryFormat.HEATMAP), row_unit="s", size=(8, 8)),
        lines("From cancellation to free memory",
              "How long 99 % and half of the cancelled requests kept the "
              "device. Cancelled work leaves within a layer; more than a "
              "second means layers that take that long.", "s",
              query(_quantile(0.99, "", "qkscope_cancel_to_idle_seconds"),
                    "99 %"),
              query(_quantile(0.5, "", "qkscope_cancel_to_idle_seconds"),
                    "half"), steps=[(1, "orange")]),
        lines("How full passes are",
              "Rows of a pass, as a part of those it could have had: the mean, "
              "by server. Low beside a long queue: requests do not fit "
              "together (other models, no memory).", "percentunit",
              query(_mean("qkscope_pass_fill_ratio", " by (instance)"),
                    "{{instance}}"), top=1),
        lines("Rows and sequences of a pass",
              "Means over all passes. A row is a token of a prompt, or one "
              "token that is generated.", "short",
              query(_mean("qkscope_pass_rows"), "rows"),
              query(_mean("qkscope_pass_sequences"), "sequences")),
    ]


def _limits():
    return [
        lines("Queue", "Requests that wait and that run, and how many may "
              "wait. A full queue refuses requests.", "short",
              query("sum(qkscope_queued_requests{@})", "waiting"),
              query("sum(qkscope_running_requests{@})", "running"),
              query("sum(qkscope_queue_limit_requests{@})", "limit"),
              alerts=["QkscopeQueueSaturated"]),
        lines("Age of the oldest waiting request", "By server.", "s",
              query("max by (instance) (qkscope_queue_oldest_age_seconds{@})",
                    "{{instance}}"), steps=[(120, "red")],
              alerts=["QkscopeQueueAge", "QkscopeQueueStandsStill"]),
        lines("Device busy",
              "Share of the time in which a server computed passes. Near "
              "100 % with a growing queue: more devices are needed.",
              "percentunit",
              query("sum by (instance) (rate(qkscope_pass_seconds_total{@}"
                    "[$__rate_interval]))", "{{instance}}"), top=1,
              steps=[(0.9, "orange")]),
        lines("KV cache in use",
              "Share of each model's KV cache that sequences hold. At 100 %, "
              "requests wait for others to end: raise limits.kv_cache_bytes "
              "if there is memory.", "percentunit",
              query("sum by (model) (qkscope_kv_cache_used_bytes{@}) / "
                    "sum by (model) (qkscope_kv_cache_limit_bytes{@} > 0)",
                    "{{model}}"), top=1, steps=[(0.95, "orange")],
              alerts=["QkscopeKvCacheFull"]),
        lines("Memory of the process", "Resident bytes, by server.", "bytes",
              query("sum by (instance) (process_resident_memory_bytes{@} "
                    f"{OF_QKSCOPE})", "{{instance}}")),
        lines("Processor", "Processor time per second: 1 is a whole core.",
              "short",
              query("sum by (instance) (rate(process_cpu_seconds_total{@}"
                    f"[$__rate_interval]) {OF_QKSCOPE})", "{{instance}}")),
        lines("Descriptors in use",
              "Share of the files and connections that a server may open. "
              "When few are left, new connections are closed: raise the limit "
              "(LimitNOFILE).", "percentunit",
              query("max by (instance) (process_open_fds{@} / "
                    f"process_max_fds{{@}} {OF_QKSCOPE})", "{{instance}}"),
              top=1, steps=[(0.8, "red")], alerts=["QkscopeDescriptors"]),
        lines("Kept results",
              "Share of the number and of the bytes of results that may be "
              "kept. When either is used up, detached and resumable requests "
              "are refused.", "percentunit",
              query("max(qkscope_kept_results{@} / "
                    "qkscope_kept_results_limit{@})", "results"),
              query("max(qkscope_kept_bytes{@} / qkscope_kept_limit_bytes{@})",
                    "bytes"), top=1, steps=[(0.9, "red")],
              alerts=["QkscopeSpoolFull"]),
        lines("Connections", "Open connections, by server.", "short",
              query("sum by (instance) (qkscope_connections{@})",
                    "{{instance}}")),
        lines("What should not happen",
              "Per second: passes that failed, values that are NaN or "
              "infinite, failures of the spool, lines of the log that were "
              "lost, and connections that were cut because of what they cost. "
              "All are 0 in a healthy service.", "short",
              query("sum(rate(qkscope_failed_passes_total{@}"
                    "[$__rate_interval]))", "failed passes"),
              query("sum(rate(qkscope_activation_non_finite_total{@}"
                    "[$__rate_interval]))", "values not finite"),
              query("sum(rate(qkscope_spool_errors_total{@}"
                    "[$__rate_interval]))", "spool errors"),
              query("sum(rate(qkscope_log_dropped_total{@}"
                    "[$__rate_interval]))", "lost log lines"),
              query("sum(rate(qkscope_connections_cut_total{@}"
                    "[$__rate_interval]))", "cut connections"),
              size=(24, 7),
              alerts=["QkscopePassesFail", "QkscopeNonFiniteActivations",
                      "QkscopeSpoolFails", "QkscopeLogDropped",
                      "QkscopeConnectionsCut"]),
    ]


def _users():
    def sums(metric):
        return f"sum by (user) ({metric}{{@}})"

    def grown(metric):
        return f"sum by (user) (increase({metric}{{@}}[$__range]))"

    return [
        bars("Busiest users",
             "Device time that each user took in the shown time, the ten who "
             "took most. Users who all want more get shares by their weights.",
             "s",
             last(f"topk(10, {grown('qkscope_user_device_seconds_total')})",
                  "{{user}}")),
        bars("Budgets",
             "The part of a user's budgets that is used up, of the budget "
             "that is used up most. At 100 %, the user's requests are refused "
             "until the window moves on.", "percentunit",
             last("topk(10, max by (user) (qkscope_user_budget_used_ratio{@}))",
                  "{{user}}"), steps=[(0.8, "orange"), (0.995, "red")], high=1,
             alerts=["QkscopeBudgetExhausted"]),
        lines("Device time by user",
              "Seconds of the device per second, of the ten users who take "
              "most at a time.", "short",
              query("topk(10, sum by (user) (rate("
                    "qkscope_user_device_seconds_total{@}[$__rate_interval])))",
                    "{{user}}"), stacked=True),
        table("Users",
              "All users that the metrics name; the rest together is `other`. "
              "Requests, device time and bytes are those of the shown time; "
              "memory and requests in flight are those of now.", "user",
              [("Requests", "short", grown("qkscope_user_requests_total"), ()),
               ("Device time", "s",
                grown("qkscope_user_device_seconds_total"), ()),
               ("Sent", "bytes", grown("qkscope_user_streamed_bytes_total"),
                ()),
               ("In flight", "short", sums("qkscope_user_in_flight_requests"),
                ()),
               ("Memory", "bytes", sums("qkscope_user_memory_bytes"), ()),
               ("Budget used", "percentunit",
                "max by (user) (qkscope_user_budget_used_ratio{@})",
                [(0.8, "orange"), (0.995, "red")])],
              alerts=["QkscopeBudgetExhausted"]),
    ]


def rows():
    return [("Now", _now()), ("Calls", _calls()),
            ("Where the time goes", _time()), ("What runs out", _limits()),
            ("Users", _users())]
