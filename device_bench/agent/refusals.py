"""Why a request is not done, as it travels: an HTTP status and a `Refusal`."""

from __future__ import annotations

import math

from starlette.responses import Response

from device_bench.wire import Refusal


class Refused(Exception):
    """A request is refused. Becomes the answer.

    Args:
        status: HTTP status.
        code: for programs.
        message: for people, with what to do next; never a secret.
        retry_after: seconds after which to try again, where that helps.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def response(self) -> Response:
        """The answer."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["www-authenticate"] = 'Bearer realm="device-bench"'
        # What a client sent may hold lone surrogates, which have no UTF-8.
        message = self.message.encode("utf-8", "backslashreplace").decode()
        content = Refusal(code=self.code, message=message).model_dump_json()
        return Response(content, self.status, headers, "application/json")
