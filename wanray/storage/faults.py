"""Which errors of a store may pass by themselves, and what to do about some that will not.

Errors are told apart by what they say (errno, S3 error code, HTTP status, name of the class), since each
library has its own classes and none of them but botocore's need be installed.
"""

import errno

_TRANSIENT_ERRNOS = (errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR)
_TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)
_TRANSIENT_CODES = (
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "ConditionalRequestConflict",  # another conditional put is under way
    "NoSuchUpload",  # the answer to the multipart upload's end was lost; it has ended, well or not
)
_TRANSIENT_CLASSES = (
    "ConnectionError",
    "TimeoutError",
    "HTTPClientError",
    "ResponseParserError",
    "MetadataRetrievalError",
    "CredentialRetrievalError",
    "ClientConnectionError",
    "ClientPayloadError",
    "ServiceRequestError",
    "ServiceResponseError",
    "TransportError",
)
"""Of Python, botocore, aiohttp, Azure and Google: nobody answered, or not to the end."""


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later although nobody does anything about it."""
    names = {parent.__name__ for parent in type(error).__mro__}
    if "SSLError" in names or _is_full(error):
        return False
    code, status = answer_of(error)
    return (
        status in _TRANSIENT_STATUSES
        or code in _TRANSIENT_CODES
        or not names.isdisjoint(_TRANSIENT_CLASSES)
        or (not code and getattr(error, "errno", None) in _TRANSIENT_ERRNOS)
    )


def remedy_of(error: Exception) -> str | None:
    """What to do about `error`, where the kind of store has no say in it."""
    if _is_full(error):
        return (
            "its disk or quota is full: make room there or raise the quota, then run the same command again"
        )
    if answer_of(error)[0] == "RequestTimeTooSkewed":
        return "the clocks of this machine and of the store differ: set this machine's (NTP)"
    return None


def answer_of(error: BaseException) -> tuple[str, int]:
    """(S3 error code, HTTP status) of the store's answer; empty and 0 where it gave none."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return response.get("Error", {}).get("Code", ""), status
    named = [getattr(error, name) for name in ("status_code", "status", "code") if hasattr(error, name)]
    return "", named[0] if named and isinstance(named[0], int) else 0


def _is_full(error: Exception) -> bool:
    code, status = answer_of(error)
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or status == 507
        or "quota" in code.lower()
        or "StorageFull" in code
    )
