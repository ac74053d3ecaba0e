"""What a run costs: FLOPs of a model, prices and power of hardware, the ledger of a stage."""

from aftershock.cost.ledger import Ledger, Work, price

__all__ = ["Ledger", "Work", "price"]
