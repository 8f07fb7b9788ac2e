"""What a scrape reads: requests by route template and status, their time, and how many are at work."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The numbers of one service. Labels come from our own routes, so a client cannot add any."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "tracetune_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "tracetune_http_request_seconds",
            "From the head of a request to the end of its answer.",
            ("method", "route"),
            registry=self.registry,
            buckets=BUCKETS,
        )
        self.in_flight = Gauge("tracetune_http_in_flight", "Requests at work.", registry=self.registry)
        self.streams = Gauge("tracetune_http_streams", "Event streams that are open.", registry=self.registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request that ended."""
        known = method if method in METHODS else "other"
        self.requests.labels(known, route, str(status)).inc()
        self.seconds.labels(known, route).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
