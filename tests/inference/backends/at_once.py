"""A backend of which a test decides the answers."""

from concurrent.futures import Future

from birder.data.fitting import Pixels
from birder.inference.backends.base import Backend, Outputs, Pending


class AtOnce(Backend):
    """Answers when it is asked, in the thread that asks."""

    device = "cpu"

    def answers(self, pixels: Pixels) -> Outputs:
        """What it says to pictures."""
        raise NotImplementedError

    def begin(self, pixels: Pixels, *, five: bool = False) -> Pending:
        """See ``Backend``; five parts are not looked at."""
        assert not five
        part: Future[list[Outputs]] = Future()
        part.set_result([self.answers(pixels)])
        return Pending([part])
