"""The dashboard of the fleet: all servers, side by side, and their devices."""

from panels import OF_QKSCOPE, bars, last, lines, query, stat, table, variables

TITLE = "qkscope: fleet"
TEXT = ("All servers side by side: which are up, what they run, how loaded "
        "they are, when their certificates expire, and their GPUs.")
VARIABLES = variables(["qkscope_build_info"])

EXPIRY = "qkscope_tls_certificate_expiry_timestamp_seconds"
FAULT = "UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS"
DAY = 86400
# Targets of the jobs that had a qkscope server within the last hour; a server
# that is down has no metric but this.
UP = "up{@} and on (job) last_over_time(qkscope_build_info{@}[1h])"
EXPIRING = [(None, "red"), (DAY, "orange"), (14 * DAY, "green")]


def _now():
    return [
        stat("Servers that answer",
             "Share of Prometheus's targets that could be scraped.",
             "percentunit", query(f"avg({UP})"), decimals=0,
             steps=[(None, "red"), (1, "green")],
             alerts=["QkscopeDown", "QkscopeNoServers"]),
        stat("Servers that take calls", "Servers whose health is SERVING.",
             "short", query("sum(qkscope_serving{@})"),
             steps=[(None, "red"), (1, "green")], alerts=["QkscopeNotServing"]),
        stat("Servers that drain",
             "They end as soon as their calls have ended, and take no new "
             "ones.", "short", query("sum(qkscope_draining{@})"),
             steps=[(1, "orange")]),
        stat("Versions", "Different versions that run. More than one for long: "
             "an upgrade has stopped halfway.", "short",
             query("count(count by (version) (qkscope_build_info{@}))"),
             steps=[(2, "orange")], graph=False),
        stat("Starts", "How often servers have started anew in the shown "
             "time.", "short",
             last("sum(changes(process_start_time_seconds{@}[$__range]) "
                  f"{OF_QKSCOPE})"),
             steps=[(1, "orange"), (3, "red")], graph=False,
             alerts=["QkscopeRestartLoop"], decimals=0),
        stat("The next certificate expires in",
             "Servers read a new certificate by themselves when its file "
             "changes.", "dtdurations", query(f"min({EXPIRY}{{@}} - time())"),
             steps=EXPIRING, nothing="no TLS", graph=False,
             alerts=["QkscopeCertificateExpiring",
                     "QkscopeCertificateExpired"]),
    ]


def _servers():
    def by(expr):
        return f"max by (instance) ({expr})"

    return [
        table("Servers", "One row for each server that could be scraped.",
              "instance",
              [("Takes calls", "bool_yes_no", by("qkscope_serving{@}"),
                [(None, "red"), (1, "green")]),
               ("Drains", "bool_yes_no", by("qkscope_draining{@}"), ()),
               ("Waiting", "short", by("qkscope_queued_requests{@}"), ()),
               ("Running", "short", by("qkscope_running_requests{@}"), ()),
               ("Memory", "bytes",
                by(f"process_resident_memory_bytes{{@}} {OF_QKSCOPE}"), ()),
               ("Runs for", "dtdurations",
                by(f"time() - process_start_time_seconds{{@}} {OF_QKSCOPE}"),
                ()),
               ("Certificate", "dtdurations", by(f"{EXPIRY}{{@}} - time()"),
                EXPIRING)],
              info=[("max by (instance, replica) (qkscope_replica_info{@})",
                     ["replica"]),
                    ("max by (instance, version, backend) "
                     "(qkscope_build_info{@})", ["version", "backend"])],
              size=(24, 6), alerts=["QkscopeNotServing"]),
        lines("Scraped", "1 while Prometheus gets an answer from the server's "
              "metrics port, else 0.", "short",
              query(f"min by (instance) ({UP})", "{{instance}}"), top=1,
              alerts=["QkscopeDown"]),
        lines("Starts of servers",
              "How often a server started within the interval of a point.",
              "short",
              query("sum by (instance) (changes(process_start_time_seconds{@}"
                    f"[$__rate_interval]) {OF_QKSCOPE})", "{{instance}}"),
              alerts=["QkscopeRestartLoop"]),
        lines("Time until certificates expire", "By server; a server without "
              "TLS has none.", "dtdurations",
              query(f"min by (instance) ({EXPIRY}{{@}} - time())",
                    "{{instance}}"), steps=EXPIRING,
              alerts=["QkscopeCertificateExpiring"]),
    ]


def _load():
    return [
        lines("Calls", "Calls that ended per second, by server. Balancers "
              "should keep the curves together.", "reqps",
              query("sum by (instance) (rate(qkscope_rpc_handled_total{@}"
                    "[$__rate_interval]))", "{{instance}}")),
        lines("Calls that failed", "Share of the calls that ended by the "
              "server's fault, by server. One server alone: its device or "
              "disk.", "percentunit",
              query("1 - sum by (instance) (rate(qkscope_rpc_handled_total"
                    f'{{@, code!~"{FAULT}"}}[$__rate_interval])) / '
                    "sum by (instance) (rate(qkscope_rpc_handled_total{@}"
                    "[$__rate_interval]))", "{{instance}}"),
              steps=[(0.05, "red")], alerts=["QkscopeErrorRatio"]),
        lines("Device busy", "Share of the time in which a server computed "
              "passes.", "percentunit",
              query("sum by (instance) (rate(qkscope_pass_seconds_total{@}"
                    "[$__rate_interval]))", "{{instance}}"), top=1),
        lines("Queue", "Requests that wait, by server. One long queue beside "
              "short ones: calls are not balanced, or keep to one server.",
              "short", query("sum by (instance) (qkscope_queued_requests{@})",
                             "{{instance}}"),
              alerts=["QkscopeQueueSaturated"]),
        lines("The longest wait", "Age of the oldest waiting request, by "
              "server.", "s",
              query("max by (instance) (qkscope_queue_oldest_age_seconds{@})",
                    "{{instance}}"), steps=[(120, "red")],
              alerts=["QkscopeQueueAge"]),
        lines("Requests that run", "By server.", "short",
              query("sum by (instance) (qkscope_running_requests{@})",
                    "{{instance}}")),
    ]


def _devices():
    def gpu(metric):
        return query("max by (instance, device) "
                     f"(qkscope_device_{metric}{{@}})",
                     "{{instance}} {{device}}")

    return [
        bars("Memory of GPUs in use",
             "Share of the GPU's memory that this and other processes hold.",
             "percentunit",
             query("max by (instance, device) ("
                   "qkscope_device_memory_used_bytes{@} / "
                   "qkscope_device_memory_bytes{@})",
                   "{{instance}} {{device}}"),
             steps=[(0.9, "orange"), (0.95, "red")], high=1, size=(6, 6),
             alerts=["QkscopeDeviceMemory"]),
        lines("GPUs busy", "Share of the time in which a kernel ran.",
              "percentunit", gpu("utilization_ratio"), top=1, size=(6, 6)),
        lines("Temperature of GPUs", "Above some 85 degrees, GPUs slow down: "
              "look at fans and air.", "celsius", gpu("temperature_celsius"),
              steps=[(85, "red")], size=(6, 6)),
        lines("Power of GPUs", "Watts that each GPU draws.", "watt",
              gpu("power_watts"), size=(6, 6)),
    ]


def rows():
    return [("Now", _now()), ("Servers", _servers()), ("Load", _load()),
            ("GPUs (empty without one)", _devices())]
