"""Runs as xarray trees and as tables of pandas or polars. Needs the extra
"data"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qkscope.extras import need
from qkscope.tensor import LayerResult, tensor_axes

if TYPE_CHECKING:
    from qkscope.run import ArmResult, Run


def _variable_name(tensor: LayerResult) -> str:
    """The tensor's name without arm and layer: "hook_rot_q.after"."""
    return tensor.point + "".join(
        f"_{part}" for part, there in (
            (tensor.stage, tensor.stage != "before"),
            (tensor.phase, tensor.phase != "prefill"),
            (f"step_{tensor.step}", tensor.step is not None)) if there)


def _data_array(xarray: Any, tensor: LayerResult) -> Any:
    """Dims are named after the point, because Q and K may have different
    heads: "q_head"; positions and dims are shared where they can be."""
    header = tensor.header
    short = {"hook_q": "q", "hook_rot_q": "q", "hook_k": "k",
             "hook_rot_k": "k", "hook_v": "v"}.get(tensor.point, tensor.point)
    if header.group_size == 1 and short in ("k", "v"):
        short = f"{short}_query"  # one head per query head, or plain attention
    dims, coords = [], {}
    for axis, extent in zip(tensor_axes(header), tensor.shape):
        name = f"{short}_head" if axis == "head" else axis
        dims.append(name)
        given = {"head": header.heads, "position": header.positions,
                 "patch": ()}.get(axis, ())
        if given and len(given) == extent:
            coords[name] = np.array(given)
        elif axis != "dim":
            coords[name] = np.arange(extent)
    attributes = {"form": tensor.form, "point": tensor.point,
                  "stage": tensor.stage, "phase": tensor.phase,
                  "group_size": header.group_size}
    statistics = tensor.statistics
    if statistics is not None:
        attributes |= {"massive_count": statistics.massive_count,
                       "ratio": statistics.ratio, "max": statistics.max}
    return xarray.DataArray(tensor.values, dims=dims, coords=coords,
                            attrs=attributes)


def to_xarray(run: Run) -> Any:
    """An xarray.DataTree: /ARM/layer_N (of the vision tower:
    /ARM/image_I_layer_N), with a variable for each tensor."""
    xarray = need("xarray", "data")
    datasets: dict[str, Any] = {"/": xarray.Dataset(attrs={
        "model": run.model, "token_ids": np.array(run.token_ids),
        "request_id": run.request_id,
        "server_version": run.manifest.server_version})}
    arms: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in run.arms}
    for tensor in run.tensors:
        place = f"layer_{tensor.layer}" if tensor.image is None else (
            f"image_{tensor.image}_layer_{tensor.layer}")
        arms[tensor.arm].setdefault(place, {})[_variable_name(tensor)] = (
            _data_array(xarray, tensor))
    for arm in run:
        # "/" would be a level of the tree.
        node = "/" + arm.name.replace("/", "|")
        datasets[node] = xarray.Dataset(_comparison_variables(arm),
                                        attrs={"kind": arm.kind,
                                               "arm": arm.name})
        for place, variables in arms[arm.name].items():
            datasets[f"{node}/{place}"] = xarray.Dataset(variables)
    return xarray.DataTree.from_dict(datasets)


def _comparison_variables(arm: ArmResult) -> dict[str, Any]:
    comparison = arm.comparison
    if comparison is None:
        return {}
    # Positions of the comparison are those of the whole prompt.
    return {name: ("prompt_position", getattr(comparison, name))
            for name in ("kl", "token_logprob", "top1_flip", "top1_id")
            if len(getattr(comparison, name))}


_STATISTICS = ("massive_count", "ratio", "max", "top_dim", "top_dim_share",
               "low_frequency_share", "non_finite_count")


def columns(run: Run) -> dict[str, list[Any]]:
    """A row for each tensor: what it is, its statistics, and of its arm the
    comparison's means."""
    rows: dict[str, list[Any]] = {name: [] for name in (
        "arm", "kind", "layer", "point", "stage", "phase", "step", "image",
        *_STATISTICS, "largest_head", "largest_dim", "wavelength", "mean_kl",
        "mean_logprob", "top1_flips")}
    for tensor in run.tensors:
        arm = run[tensor.arm]
        for name in ("arm", "layer", "point", "stage", "phase", "step",
                     "image"):
            rows[name].append(getattr(tensor, name))
        rows["kind"].append(arm.kind)
        statistics = tensor.statistics
        for name in _STATISTICS:
            rows[name].append(getattr(statistics, name, None))
        largest = statistics.largest if statistics is not None else None
        rows["largest_head"].append(getattr(largest, "head", None))
        rows["largest_dim"].append(getattr(largest, "dim", None))
        rows["wavelength"].append(getattr(largest, "wavelength", None))
        for name in ("mean_kl", "mean_logprob", "top1_flips"):
            rows[name].append(getattr(arm.comparison, name, None))
    return rows


def _frame(run: Run, backend: str) -> Any:
    narwhals = need("narwhals", "data")
    frame = narwhals.from_dict(columns(run), backend=need(backend, "data"))
    return narwhals.to_native(frame)


def to_pandas(run: Run) -> Any:
    """A pandas.DataFrame of `columns`."""
    return _frame(run, "pandas")


def to_polars(run: Run) -> Any:
    """A polars.DataFrame of `columns`."""
    return _frame(run, "polars")
