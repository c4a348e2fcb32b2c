r"""The contract of journals, as tests to run against one (E6).

In a test file of pytest's::

    from asgi_bg.testing.journal_contract import JournalContract


    class TestMyJournal(JournalContract):
        def make_journal(self):
            return MyJournal(self.place / "journal")

        def make_elsewhere(self):
            place = str(self.place / "journal")
            return f"from my_package import MyJournal\njournal = MyJournal({place!r})"

``self.place`` is an empty directory for each test; a journal that needs something else overrides
the fixture ``place``.

The tests start further processes, and kill them: what a journal is for can be seen in no other
way. What it does when its storage fails has to be tested by who knows how to make that fail:
`Journal.commit` then raises `JournalError`, and nothing of its batch is written (J2).
"""

from __future__ import annotations

from asgi_bg.testing._journal_claiming import Claiming
from asgi_bg.testing._journal_dying import Dying
from asgi_bg.testing._journal_reading import Reading
from asgi_bg.testing._journal_writing import Writing

__all__ = ["JournalContract"]


class JournalContract(Writing, Claiming, Reading, Dying):
    """What every journal does. Derive from it, and implement the two hooks."""
