"""Where a result comes from, as a picture: every box leads to its thing, every line says how one became the other."""

from fastapi import Request
from fastapi.responses import HTMLResponse

from tracetune.api.strict import Router
from tracetune.app.lineage import Kind, Node, lineage
from tracetune.web.graph import BOX_HEIGHT, BOX_WIDTH, layout
from tracetune.web.render import page_rule, render
from tracetune.web.wording import query, segment

router = Router(tags=["pages"])


@router.get("/lineage", **page_rule("read", 404))
def graph(request: Request, kind: Kind, id: str) -> HTMLResponse:
    """All that one thing was made from, and all that was made of it."""
    found = lineage(kind, id, request.app.state.settings.home)
    placed = layout(len(found.nodes), [(edge.source, edge.target) for edge in found.edges])
    return render(
        request,
        "lineage.html",
        twin="/api/lineage" + query({"kind": kind, "id": id}),
        start=found.nodes[found.start],
        start_address=address(found.nodes[found.start]),
        nodes=[(node, box, address(node)) for node, box in zip(found.nodes, placed.boxes, strict=True)],
        edges=[
            (found.nodes[edge.source], edge.verb, found.nodes[edge.target], path)
            for edge, path in zip(found.edges, placed.paths, strict=True)
        ],
        picture=placed,
        box=(BOX_WIDTH, BOX_HEIGHT),
        truncated=found.truncated,
    )


def address(node: Node) -> str:
    """The page of a node's thing.

    >>> address(Node("dataset", "a/b", "a/b"))
    '/datasets/a%2Fb'
    """
    name = segment(node.id)
    pages = {
        "traces": f"/datasets/{name}",
        "dataset": f"/datasets/{name}",
        "run": f"/runs/{name}",
        "checkpoint": f"/runs/{name}",
        "model": f"/models/{name}",
        "evaluation": f"/evaluations/{name}",
        "eval_set": f"/evalsets/{name}",
    }
    return pages[node.kind]
