"""Every error that the risk job raises on purpose: each says what was wrong, what is allowed and what to do.

RiskError
├── SessionError        a day that is no session, or one that can't be run
├── SourceError         market data that are missing or can't be read
├── CheckError          a blocking check that failed: the run is refused
├── DatabaseError       a database that can't be reached or has the wrong schema
├── ModelError          a vintage that is missing, changed or too young for the session
├── OrderError          a book's session whose predecessor is not settled
└── ServiceError        one of the job's processes that does not start, answer or end
"""

from __future__ import annotations


class RiskError(Exception):
    """Base of the job's own errors."""


class SourceError(RiskError):
    """Market data that are missing or can't be read."""


class CheckError(RiskError):
    """A blocking check that failed: the run is refused."""


class DatabaseError(RiskError):
    """A database that can't be reached, or has the wrong schema."""


class ModelError(RiskError):
    """A vintage that is missing, changed or not old enough for the session."""


class OrderError(RiskError):
    """A book's session whose predecessor is not settled."""


class SessionError(RiskError):
    """A day that is no session of the exchange, or a session that can't be run."""


class ServiceError(RiskError):
    """One of the job's processes that does not start, answer or end."""
