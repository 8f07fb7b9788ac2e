"""Is it alive, is it ready."""

from tracetune.api.policy import rule
from tracetune.api.strict import Router

router = Router(tags=["health"])


@router.get("/api/health", **rule("open"))
def health() -> dict[str, str]:
    """The contract's health check."""
    return {"status": "healthy"}
