"""A graph of few nodes laid out in layers, left to right, for inline SVG: what comes from what, without crossings
where that is easy (Sugiyama, Tagawa and Toda 1981: longest-path layers, barycentre order)."""

from collections.abc import Sequence
from typing import NamedTuple

BOX_WIDTH, BOX_HEIGHT = 150, 64
GAP_X, GAP_Y = 38, 22
SWEEPS = 6


class Box(NamedTuple):
    """Where a node stands, by its upper left corner, in pixels."""

    x: float
    y: float


class Layout(NamedTuple):
    """`boxes` in the order of the nodes; `paths` in that of the edges, as the `d` of an SVG path."""

    boxes: list[Box]
    paths: list[str]
    width: float
    height: float


def layout(num_nodes: int, edges: Sequence[tuple[int, int]]) -> Layout:
    """Place every node right of all it comes from.

    >>> layout(2, [(0, 1)]).boxes
    [Box(x=0, y=0.0), Box(x=188, y=0.0)]
    """
    layers = _ordered(_layers(num_nodes, edges), edges)
    most = max((len(layer) for layer in layers), default=0)
    height = most * (BOX_HEIGHT + GAP_Y) - GAP_Y if most else 0
    boxes = [Box(0, 0.0)] * num_nodes
    for place, layer in enumerate(layers):
        top = (height - (len(layer) * (BOX_HEIGHT + GAP_Y) - GAP_Y)) / 2
        for row, node in enumerate(layer):
            boxes[node] = Box(place * (BOX_WIDTH + GAP_X), top + row * (BOX_HEIGHT + GAP_Y))
    width = len(layers) * (BOX_WIDTH + GAP_X) - GAP_X if layers else 0
    return Layout(boxes, [_path(boxes[start], boxes[end]) for start, end in edges], width, height)


def _layers(num_nodes: int, edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Nodes by the longest way from a beginning. Rounds are bounded, so that even a circle is drawn somehow."""
    depth = [0] * num_nodes
    for _ in range(num_nodes):
        moved = False
        for start, end in edges:
            if depth[end] <= depth[start] < num_nodes - 1:
                depth[end], moved = depth[start] + 1, True
        if not moved:
            break
    # A beginning stands right before the first thing that is made of it.
    for node in range(num_nodes):
        after = [depth[end] for start, end in edges if start == node]
        if after and not any(end == node for _, end in edges):
            depth[node] = min(after) - 1
    used = sorted(set(depth))
    return [[node for node in range(num_nodes) if depth[node] == level] for level in used]


def _ordered(layers: list[list[int]], edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Each layer sorted by the mean place of its neighbours, sweeping to and fro."""
    for sweep in range(SWEEPS):
        place = {node: row - (len(layer) - 1) / 2 for layer in layers for row, node in enumerate(layer)}
        forward = sweep % 2 == 0
        for layer in layers if forward else reversed(layers):
            near = {
                node: [place[start] for start, end in edges if end == node]
                if forward
                else [place[end] for start, end in edges if start == node]
                for node in layer
            }
            layer.sort(key=lambda node, near=near: sum(near[node]) / len(near[node]) if near[node] else place[node])
            place |= {node: row - (len(layer) - 1) / 2 for row, node in enumerate(layer)}
    return layers


def _path(start: Box, end: Box) -> str:
    x1, y1 = start.x + BOX_WIDTH, start.y + BOX_HEIGHT / 2
    x2, y2 = end.x, end.y + BOX_HEIGHT / 2
    bend = max((x2 - x1) / 2, 24)
    return f"M{x1:g},{y1:g} C{x1 + bend:g},{y1:g} {x2 - bend:g},{y2:g} {x2:g},{y2:g}"
