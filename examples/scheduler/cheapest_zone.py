"""Prefer the zone where a CPU hour costs least: a score plugin, written per node."""

ZONE = "topology.kubernetes.io/zone"


class CheapestZone:
    """Args: {"prices": {"zone-a": 0.031, ...}}. Zones without a price count as the dearest."""

    name = "CheapestZone"

    def __init__(self, args):
        self.prices = {zone: float(price) for zone, price in (args.get("prices") or {}).items()}

    def score(self, state, pod, node):
        if not self.prices:
            return 0
        dearest, cheapest = max(self.prices.values()), min(self.prices.values())
        price = self.prices.get(node.labels.get(ZONE), dearest)
        return 100 if dearest == cheapest else round(100 * (dearest - price) / (dearest - cheapest))
