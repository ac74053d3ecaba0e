"""What a recipe will take, said before anything starts, here or on a cluster; and a recipe for a budget. No torch."""

from aftershock.plan.stages import Plan, plan

__all__ = ["Plan", "plan"]
