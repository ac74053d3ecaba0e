"""What is asked: families of problems, each with a check that its own gold answers prove."""

from aftershock.tasks.base import Problem, Split, Style, Task
from aftershock.tasks.registry import Spec, from_spec, names, task
from aftershock.tasks.validate import Report

__all__ = ["Problem", "Report", "Spec", "Split", "Style", "Task", "from_spec", "names", "task"]
