"""What the dashboards are made of: queries, panels and variables of one style.

In expressions, `@` stands for the matchers of job and instance, `@model` for
those and the model's, `@layers` for those and the layers' and tensors'. Units
are Grafana's names: "s", "bytes", "percentunit" (1 is 100 %), "short" (a plain
number). Thresholds are pairs (from this value on, colour). What lies below the
first is green, unless the first has None in place of a value.
"""

from grafana_foundation_sdk.builders import bargauge
from grafana_foundation_sdk.builders import common
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import heatmap as heat
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import heatmap as h
from grafana_foundation_sdk.models import prometheus as p

SERVER = 'job=~"$job", instance=~"$instance"'
# Appended to a metric that programs of other jobs have, too.
OF_QKSCOPE = "and on (job, instance) qkscope_build_info{@}"
MODEL = SERVER + ', model="$model"'
LAYERS = MODEL + ', layer=~"$layer", tensor=~"$tensor"'

LETTERS = "ABCDEFGHIJKLMNOP"  # the queries of a panel

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
COLOURS = {
    "clean": "#8C8C8C", "disrupted": ORANGE, "control": BLUE,
    "Q": ORANGE, "K": BLUE, "V": GREEN,
}


def query(expr, legend="", instant=False, form=None):
    """One query of a panel. `legend` names its series: {{label}}."""
    for short, matchers in (("@layers", LAYERS), ("@model", MODEL),
                            ("@", SERVER)):
        expr = expr.replace(short, matchers)
    target = prometheus.Dataquery().expr(expr).legend_format(legend)
    target = target.instant() if instant else target.range()
    return target.format(form or p.PromQueryFormat.TIME_SERIES)


def last(expr, legend=""):
    """A query of the present alone, or of the shown time as a whole."""
    return query(expr, legend, instant=True)


def column(expr):
    """A query for a column of a table."""
    return query(expr, instant=True, form=p.PromQueryFormat.TABLE)


def datasource():
    return d.DataSourceRef(type_val="prometheus", uid="${datasource}")


def _thresholds(steps):
    if not steps or steps[0][0] is not None:
        steps = [(None, "green"), *steps]
    return board.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(
        [d.Threshold(value=value, color=colour) for value, colour in steps])


def _colour(mode):
    return board.FieldColor().mode(mode)


def _common(panel, title, text, unit, queries, size, alerts, decimals):
    """What all panels have. `alerts`: those that the runbook explains."""
    if alerts:
        text += " Runbook: " + ", ".join(alerts) + "."
    panel = panel.title(title).description(text).unit(unit)
    panel = panel.datasource(datasource()).span(size[0]).height(size[1])
    for letter, target in zip(LETTERS, queries):
        panel = panel.with_target(target.ref_id(letter))
    return panel if decimals is None else panel.decimals(decimals)


def _last_value():
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def stat(title, text, unit, target, size=(4, 4), steps=(), alerts=(),
         decimals=None, nothing="no data", graph=True):
    """One number, coloured by its thresholds."""
    panel = _common(stats.Panel(), title, text, unit, [target], size, alerts,
                    decimals)
    mode = c.BigValueGraphMode.AREA if graph else c.BigValueGraphMode.NONE
    return (panel.no_value(nothing).thresholds(_thresholds(steps))
            .color_scheme(_colour(d.FieldColorModeId.THRESHOLDS))
            .color_mode(c.BigValueColorMode.VALUE).graph_mode(mode)
            .reduce_options(_last_value()))


def lines(title, text, unit, *queries, size=(8, 8), steps=(), alerts=(),
          stacked=False, top=None, decimals=None, interval=None,
          coloured=()):
    """Series over time. Thresholds are dashed lines; `top` is the value that
    the axis reaches at least; series named in `coloured` have the colour that
    their name has everywhere."""
    panel = _common(series.Panel(), title, text, unit, queries, size, alerts,
                    decimals)
    panel = (panel.min(0).line_width(1).fill_opacity(40 if stacked else 8)
             .show_points(c.VisibilityMode.NEVER).span_nulls(False)
             .color_scheme(_colour(d.FieldColorModeId.PALETTE_CLASSIC))
             .legend(common.VizLegendOptions().show_legend(True)
                     .display_mode(c.LegendDisplayMode.LIST)
                     .placement(c.LegendPlacement.BOTTOM))
             .tooltip(common.VizTooltipOptions()
                      .mode(c.TooltipDisplayMode.MULTI)
                      .sort(c.SortOrder.DESCENDING)))
    if stacked:
        panel = panel.stacking(
            common.StackingConfig().mode(c.StackingMode.NORMAL).group("A"))
    if steps:
        panel = panel.thresholds(_thresholds(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(
                c.GraphThresholdsStyleMode.DASHED))
    if top is not None:
        panel = panel.axis_soft_max(top)
    if interval:
        panel = panel.interval(interval)
    for name in coloured:
        panel = panel.override_by_name(name, [d.DynamicConfigValue(
            id_val="color",
            value={"mode": "fixed", "fixedColor": COLOURS[name]})])
    return panel


def bars(title, text, unit, *queries, size=(8, 8), steps=(), alerts=(),
         upright=False, decimals=None, low=0, high=None):
    """A bar for each series, of its last value; `upright`: bars side by side.
    """
    panel = _common(bargauge.Panel(), title, text, unit, queries, size, alerts,
                    decimals)
    if high is not None:
        panel = panel.max(high)
    orientation = (c.VizOrientation.VERTICAL if upright
                   else c.VizOrientation.HORIZONTAL)
    mode = (d.FieldColorModeId.THRESHOLDS if steps
            else d.FieldColorModeId.CONTINUOUS_BL_PU)
    return (panel.min(low).thresholds(_thresholds(steps))
            .color_scheme(_colour(mode)).orientation(orientation)
            .display_mode(c.BarGaugeDisplayMode.BASIC)
            .reduce_options(_last_value()))


def heatmap(title, text, unit, target, row_unit="none", size=(8, 10), high=None,
            decimals=None, interval=None, scheme="Inferno"):
    """Series over time as rows of coloured cells. Series whose names are
    numbers are sorted by them; the buckets of a histogram need
    form="heatmap"."""
    colours = (heat.HeatmapColorOptions().mode(h.HeatmapColorMode.SCHEME)
               .scheme(scheme).steps(64).reverse(False).exponent(0.5)
               .scale(h.HeatmapColorScale.LINEAR).fill("dark-orange").min(0))
    if high is not None:
        colours = colours.max(high)
    panel = _common(heat.Panel(), title, text, unit, [target], size, (),
                    decimals)
    if interval:
        panel = panel.interval(interval)
    # Zero is a value as any other, but in the buckets of a histogram, where
    # most are empty.
    hidden = 0 if target.build().format_val == p.PromQueryFormat.HEATMAP else -1
    return (panel.calculate(False).color(colours).cell_gap(0)
            .y_axis(heat.YAxisConfig().unit(row_unit).reverse(False)
                    .axis_placement(c.AxisPlacement.LEFT))
            .cell_values(heat.CellValues().unit(unit))
            .filter_values(heat.FilterValueRange().le(hidden)))


def table(title, text, key, columns, size=(24, 8), alerts=(), info=(),
          number_key=False):
    """Rows by the label `key`. `columns`: (name, unit, expression, thresholds).
    `info`: (expression, labels), whose labels become columns, too, before the
    others. With `number_key`, rows are sorted by the key as a number."""
    queries = [column(expr) for expr, _ in info]
    queries += [column(expr) for _, _, expr, _ in columns]
    panel = _common(tables.Panel(), title, text, "short", queries, size, alerts,
                    None)
    labels = [label for _, names in info for label in names]
    fields = [f"Value #{letter}" for letter, _ in zip(LETTERS, queries)]
    shown = fields[len(info):]
    for (name, unit, _, steps) in columns:
        properties = [d.DynamicConfigValue(id_val="unit", value=unit)]
        if steps:
            properties += [
                d.DynamicConfigValue(id_val="thresholds",
                                     value=_thresholds(steps).build()),
                d.DynamicConfigValue(id_val="custom.cellOptions",
                                     value={"type": "color-text"})]
        panel = panel.override_by_name(name, properties)
    transformations = [("merge", {})]
    if number_key:
        transformations += [
            ("convertFieldType", {"conversions": [
                {"targetField": key, "destinationType": "number"}]}),
            ("sortBy", {"sort": [{"field": key}]})]
    transformations.append(("organize", {
        "excludeByName": {
            name: True for name in ["Time", *fields[:len(info)]]},
        "indexByName": {
            name: place for place, name in enumerate([key, *labels, *shown])},
        "renameByName": {
            **{label: label.capitalize() for label in [key, *labels]},
            **{field: one[0] for field, one in zip(shown, columns)}}}))
    return panel.transformations(
        [d.DataTransformerConfig(id_val=name, options=options)
         for name, options in transformations])


def variable(name, label, definition, text, many=True):
    """A variable with the values that `definition` finds. `many`: several may
    be chosen, and all are at first."""
    out = (board.QueryVariable(name).label(label).description(text)
           .datasource(datasource())
           .query(definition)
           .refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
           .sort(d.VariableSort.NUMERICAL_ASC if name == "layer"
                 else d.VariableSort.ALPHABETICAL_ASC))
    if not many:
        return out
    everything = d.VariableOption(text="All", value="$__all", selected=True)
    return out.multi(True).include_all(True).all_value(".+").current(everything)


def variables(known_by, model_from=None, layers=False):
    """datasource, job and instance; with `model_from` one model, with `layers`
    its layers and tensors. `known_by`: the metrics whose jobs are offered;
    `model_from`: the metric whose models are."""
    known = "|".join(known_by)
    out = [
        board.DatasourceVariable("datasource").label("Data source")
        .type("prometheus"),
        variable("job", "Job",
                 f'label_values({{__name__=~"{known}"}}, job)',
                 "Prometheus's jobs that scrape servers."),
        variable("instance", "Instance",
                 f'label_values({{__name__=~"{known}", job=~"$job"}}, '
                 "instance)", "Servers, by the address of their metrics."),
    ]
    if model_from:
        out.append(variable(
            "model", "Model", f"label_values({model_from}{{{SERVER}}}, model)",
            "The model that is shown.", many=False))
    if layers:
        source = f"qkscope_activation_max_mean_ratio{{{MODEL}}}"
        out += [
            variable("layer", "Layer", f"label_values({source}, layer)",
                     "Layers, from 0."),
            variable("tensor", "Tensor", f"label_values({source}, tensor)",
                     "Queries (q), keys (k) or values (v)."),
        ]
    return out
