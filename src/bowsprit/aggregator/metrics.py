"""The aggregator's figures, with upstream's names and HELP texts (kube-aggregator pkg/controllers/status/metrics)."""

from __future__ import annotations

from bowsprit.apiserver.metrics import family

_MAX_SERIES = 2000


class AggregatorMetrics:
    """Counted in plain dicts; `text` puts them together."""

    def __init__(self) -> None:
        self._available: dict[str, bool] = {}
        self._unavailable: dict[tuple[str, str], int] = {}
        self.missing_names = 0

    def set_available(self, name: str, available: bool) -> None:
        """The state of an APIService now."""
        self._available[name] = available

    def forget(self, name: str) -> None:
        """An APIService has gone."""
        self._available.pop(name, None)

    def count_unavailable(self, name: str, reason: str) -> None:
        """An APIService was available and is no longer."""
        if (name, reason) in self._unavailable or len(self._unavailable) < _MAX_SERIES:
            self._unavailable[name, reason] = self._unavailable.get((name, reason), 0) + 1

    def count_missing_names(self) -> None:
        """A certificate had no subject alternative names."""
        self.missing_names += 1

    def text(self) -> str:
        """In Prometheus' text format."""
        x509 = "serving certificate OR the number of connection failures due to the"
        parts = [
            *family(
                "aggregator_unavailable_apiservice",
                "gauge",
                "[ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name.",
                [((("name", name),), 0 if good else 1) for name, good in sorted(self._available.items())],
            ),
            *family(
                "aggregator_unavailable_apiservice_total",
                "counter",
                "[ALPHA] Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
                [
                    ((("name", name), ("reason", reason)), count)
                    for (name, reason), count in sorted(self._unavailable.items())
                ],
            ),
            *family(
                "apiserver_kube_aggregator_x509_missing_san_total",
                "counter",
                f"[ALPHA] Counts the number of requests to servers missing SAN extension in their {x509} lack of x509 "
                "certificate SAN extension missing (either/or, based on the runtime environment)",
                [((), self.missing_names)],
            ),
            *family(
                "apiserver_kube_aggregator_x509_insecure_sha1_total",
                "counter",
                f"[ALPHA] Counts the number of requests to servers with insecure SHA1 signatures in their {x509} insecure "
                "SHA1 signatures (either/or, based on the runtime environment)",
                [((), 0)],
            ),
        ]
        return "".join(parts)
