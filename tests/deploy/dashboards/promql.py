"""PromQL expressions of dashboards: Grafana's variables, and the tree."""

import re

import promql_parser as ql

# Lengths that nobody writes stand for Grafana's intervals in the tree.
INTERVALS = {"$__rate_interval": "7001ms", "$__range": "7002ms",
             "$__interval": "7003ms"}


def substitute(expr, variables):
    """Puts values in place of $name and ${name}. Grafana takes the longest
    name; an unknown one is an error."""
    def value(found):
        name = found[1] or found[2]
        if name not in variables:
            raise ValueError(f"the variable ${name} is not defined")
        return variables[name]

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, expr)


def with_intervals(expr):
    """The expression with lengths in place of Grafana's intervals. Other
    variables stand in strings, where they do not disturb the parser."""
    return re.sub(r"\$__\w+", lambda found: INTERVALS.get(found[0], found[0]),
                  expr)


def parse(expr):
    """Returns the tree; ValueError if it is no PromQL."""
    return ql.parse(with_intervals(expr))


def children(node):
    if isinstance(node, ql.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, ql.Call):
        return list(node.args)
    if isinstance(node, ql.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, ql.AggregateExpr):
        return [node.expr] + ([node.param] if node.param else [])
    if isinstance(node, (ql.ParenExpr, ql.UnaryExpr, ql.SubqueryExpr)):
        return [node.expr]
    return []


def walk(node, parents=()):
    """Yields (node, parents), parents from the root on."""
    yield node, parents
    for child in children(node):
        yield from walk(child, (*parents, node))


def calls(parents):
    """The names of the functions around a node, from the inside out."""
    return [node.func.name for node in reversed(parents)
            if isinstance(node, ql.Call)]


def range_of(selector):
    """The range of a MatrixSelector: Grafana's interval, or its text."""
    text = f"{round(selector.range.total_seconds() * 1000)}ms"
    names = {value: name for name, value in INTERVALS.items()}
    return names.get(text, text)


def matchers(selector):
    """(label, operator, value) of each matcher."""
    return [(one.name, _operator(one.op), one.value)
            for one in selector.matchers.matchers]


def _operator(op):
    for name, text in (("Equal", "="), ("NotEqual", "!="), ("Re", "=~"),
                       ("NotRe", "!~")):
        if op == getattr(ql.MatchOp, name):
            return text
    raise ValueError(op)


def labels_of(node, metrics):
    """The labels that the node's series have, as far as metrics tell."""
    if isinstance(node, ql.VectorSelector):
        return set(metrics[node.name].labels) if node.name in metrics else set()
    if isinstance(node, ql.AggregateExpr):
        inner = labels_of(node.expr, metrics)
        if str(node.op) in ("topk", "bottomk"):
            return inner
        if node.modifier is None:
            return set()
        names = set(node.modifier.labels)
        by = node.modifier.type == ql.AggModifierType.By
        return inner & names if by else inner - names
    if isinstance(node, ql.Call):
        vectors = [arg for arg in node.args
                   if not isinstance(arg, (ql.NumberLiteral, ql.StringLiteral))]
        inner = set().union(*(labels_of(arg, metrics) for arg in vectors))
        if node.func.name == "histogram_quantile":
            return inner - {"le"}
        if node.func.name == "label_replace":
            return inner | {node.args[1].val}
        return inner
    if isinstance(node, ql.BinaryExpr):
        return (labels_of(node.lhs, metrics) or labels_of(node.rhs, metrics))
    return set().union(*(labels_of(child, metrics)
                         for child in children(node)))
