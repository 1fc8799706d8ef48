"""How a training tells where it is: a bar on a terminal, a line now and then anywhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """The progress of one training."""

    def __init__(self, name: str, done: int, total: int) -> None:
        self.console = Console(soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        loss = TextColumn("loss {task.fields[loss]:.4f}")
        self.bar = Bar(
            *columns, loss, TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal
        )
        self.task = self.bar.add_task(name, completed=done, total=total, loss=0.0)
        self.name, self.total, self.first = name, total, done
        self.started = time.monotonic()

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, step: int, loss: float) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step, loss=loss)

    def say(self, step: int, loss: float, words: str) -> None:
        """Print one line that stays."""
        step_s = (time.monotonic() - self.started) / max(1, step - self.first)
        line = f"{self.name} {step}/{self.total}  loss {loss:.4f}  {words}  {step_s:.2f} s a step"
        self.console.print(line, highlight=False)
